"""Conversations with outputs, and generation that follows them: shared by the tests of heads."""

import numpy as np
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.infer.generate import generate
from mmunify.infer.slots import inside_ids, slot_kinds
from mmunify.tokens import TokenRegistry
from mmunify.types import Media, Output, Sample, Text, Turn

SIZE = (24, 16)  # width, height of the pictures


def make_model(llama_folder, heads, size=32):
    """A small model with these output heads, and its processor."""
    clip = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = compose(
        encoders={"image": {"name": "clip", "config": {**clip, "image_size": size, "patch_size": 8}, "layer": -1}},
        adapters={"image": {"name": "linear"}},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}, **heads},
        tokens=TokenRegistry(["segment"]),
    )
    return model, Processor(model.spec(), model.backbone.tokenizer, model.tokens)


def picture(rng):
    return rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def talk(name, *outputs, pictures=1, task=""):
    """A conversation: pictures, a question, and an answer of words with outputs between them."""
    rng = np.random.default_rng(sum(map(ord, name)))
    shown = [Media(kind="image", source=picture(rng)) for _ in range(pictures)]
    said = [part for output in outputs for part in (Text(text=f"{name} "), output)]
    turns = (
        Turn(role="user", parts=(*shown, Text(text=f"about {name}?"))),
        Turn(role="assistant", parts=(Text(text="well"), *said, Text(text="!"))),
    )
    return Sample(turns=turns, id=name, task=task)


def output(kind, target, **more):
    return Output(kind=kind, target=target, **more)


def predictions(model, batch, node):
    """What the forward pass of a head predicts."""
    made = model.eval()(batch).outputs[node]
    if made.conditions is not None:
        return made.conditions.states
    return next(iter(value for name, value in made.predictions.items() if name in ("masks", "boxes")), None)


def generate_along(model, processor, samples, monkeypatch):
    """Generate while the model writes exactly the samples' answers."""
    prompts = [Sample(turns=sample.turns[:-1], id=sample.id) for sample in samples]
    scripts = [_choices(model, processor, *pair) for pair in zip(samples, prompts, strict=True)]
    steps = iter(range(1000))

    def unembed(states, rows=None):
        step = next(steps)
        logits = torch.zeros(len(states), model.backbone.vocab_size)
        for row, script in enumerate(scripts):
            logits[row, script[step] if step < len(script) else processor.stop_id] = 1.0
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(model.backbone, "unembed", unembed)
        return generate(model, processor, prompts, max_new_tokens=200)


def _choices(model, processor, sample, prompt):
    """Ids of an answer that the model chooses itself; the insides of slots are not among them."""
    kinds = slot_kinds(model, processor)
    ids = processor.encode(sample).input_ids[len(processor.encode(prompt, prompt=True).input_ids) :]
    chosen, at = [], 0
    while at < len(ids):
        chosen.append(ids[at])
        kind = kinds.get(ids[at])
        at += 1
        if kind is not None:
            slots = kind.spec.layout.num_slots if kind.spec.layout is not None else 0
            at += slots + len(inside_ids(processor, kind.spec)) + len(processor.encoder.ids(kind.spec.closes))
    return chosen
