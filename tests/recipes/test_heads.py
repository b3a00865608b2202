"""The switch of the output side: every option trains through all stages and answers."""

import numpy as np
import pytest

from mmunify import train
from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.infer.assistant import Assistant
from mmunify.recipe import load_recipe
from mmunify.types import Media, Text
from tests.heads.worlds import generate_along

STAGES = ("perceive", "adapt", "draw")
QUICK = [
    "trainer.precision=32-true",
    *(f"stages.{stage}.{key}" for stage in STAGES for key in ("batch_size=2", "num_workers=0")),
    *(f"stages.{stage}.steps=3" for stage in STAGES),
    "stages.perceive.data.0.turns=1",
    "stages.adapt.mix=sample",
    "stages.adapt.data=[{name: digit_world, turns: 2, tasks: [generate_image, segment, refer]}]",
    "stages.draw.mix=sample",
    "stages.draw.data=[{name: digit_world, turns: 2, tasks: [generate_image, segment, refer]}]",
]
MAIN = load_recipe("tiny/unifiedmllm")
PAIRS = [
    ("task_tokens", "masks"),
    ("queries", "boxes"),
    ("signal_tokens", "task_tokens"),
    ("hidden_states", "masks"),
]


@pytest.mark.parametrize(("heads", "regions"), PAIRS)
def test_every_option_trains_through_all_stages_and_answers(heads, regions, tmp_path, monkeypatch):
    recipe = load_recipe("tiny/heads", [f"heads={heads}", f"regions={regions}", *QUICK])
    assert recipe.check() == [] and recipe.notes == []
    bundle = train(recipe, tmp_path, progress=False)
    model, processor = bundle.model, bundle.processor()
    samples = [DigitWorld("test", [task])[1] for task in ("generate_image", "segment", "refer")]
    written = generate_along(model, processor, samples, monkeypatch)
    made = [{node: len(items) for node, items in answer.predictions.items()} for answer in written]
    expected = [{"image": 1} if heads != "task_tokens" else {}, {"masks": {"mask": 1}}.get(regions, {})]
    assert made == [*expected, {"boxes": {"box": 1}}.get(regions, {})]
    _answers(bundle, samples, written, monkeypatch)


@pytest.mark.parametrize(("heads", "regions"), PAIRS)
def test_the_stages_before_the_heads_are_those_of_the_main_recipe(heads, regions):
    """So that runs share them."""
    own, main = (
        recipe.to_dict() for recipe in (load_recipe("tiny/heads", [f"heads={heads}", f"regions={regions}"]), MAIN)
    )
    assert own["model"] == main["model"] and own["stages"][:2] == main["stages"][:2]


def _answers(bundle, samples, written, monkeypatch):
    """What the model wrote becomes a picture, a mask and a box."""
    replies = []
    for sample, answer in zip(samples, written, strict=True):
        monkeypatch.setattr("mmunify.infer.assistant.generate", lambda *a, made=answer, **k: [made])
        user = sample.turns[0].parts
        picture = next((part.source for part in user if isinstance(part, Media)), None)
        words = "".join(part.text for part in user if isinstance(part, Text))
        replies.append(Assistant.load(bundle).reply(words, image=picture))
    assert [reply.problems for reply in replies] == [(), (), ()]
    (drawn,), (mask,) = replies[0].artifacts, replies[1].artifacts
    assert drawn.kind == "image" and drawn.data.shape == (64, 64, 3)
    assert mask.kind == "mask" and mask.data.shape == (64, 64) and mask.data.dtype == np.bool_
    assert replies[2].artifacts == () and len(replies[2].regions) == 1
