"""Batched generation with a key/value cache, where rows may open output slots at different times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.infer.sequence import OpenSlot
from mmunify.infer.sequence import Sequence as Rows
from mmunify.model import UnifiedModel
from mmunify.parts import Head
from mmunify.types import Batch, Sample, SlotSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What the model wrote for one prompt.

    Attributes:
        text: decoded, special strings included, slots left out.
        ids: generated ids without the stop id.
        predictions: head node -> [items Q E] features of the output slots, in order.
        finished: False when `max_new_tokens` cut the answer.
    """

    text: str
    ids: list[int]
    predictions: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = True


@torch.inference_mode()
def generate(
    model: UnifiedModel,
    processor: Processor,
    samples: Sequence[Sample],
    max_new_tokens: int = 128,
    batch_size: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    blank_media: bool = False,
) -> list[Generated]:
    """Answer prompts; encoders run once per prompt, never once per token.

    Args:
        model: put into eval mode for the call.
        processor: the model's.
        samples: conversations that end with the user's turn.
        max_new_tokens: vocabulary tokens per answer; slot positions don't count.
        batch_size: prompts answered together; the answers don't depend on it.
        temperature: 0 = greedy.
        seed: of the draws when temperature > 0.
        blank_media: replace all media by zeros after normalisation (the baseline of evaluation).

    Raises:
        UserError: the model has no backbone.
    """
    if model.backbone is None:
        raise UserError("this model has no backbone, so it can't generate; give the recipe a model.backbone")
    was_training = model.training
    model.eval()
    try:
        answers: list[Generated] = []
        for chunk in _chunks(samples, batch_size):
            batch = processor(chunk, prompt=True).to(model.backbone.device)
            if blank_media:
                batch = _blanked(batch)
            answers += _Decoder(model, processor, batch, temperature, seed).run(max_new_tokens)
        return answers
    finally:
        model.train(was_training)


def _chunks(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _blanked(batch: Batch) -> Batch:
    media = {
        node: replace(items, values=None if items.values is None else torch.zeros_like(items.values))
        for node, items in batch.media.items()
    }
    return replace(batch, media=media)


class _Decoder:
    """One batch of prompts being answered."""

    def __init__(self, model: UnifiedModel, processor: Processor, batch: Batch, temperature: float, seed: int) -> None:
        assert model.backbone is not None
        self.model, self.processor, self.batch = model, processor, batch
        self.backbone, self.temperature = model.backbone, temperature
        self.slots = _openers(model, processor)
        self.forbidden = torch.tensor(_forbidden(processor, self.slots), dtype=torch.long)
        self.generator = torch.Generator().manual_seed(seed)
        self.ids: list[list[int]] = [[] for _ in range(batch.batch_size)]
        self.predictions: list[dict[str, list[Tensor]]] = [{} for _ in range(batch.batch_size)]

    def run(self, max_new_tokens: int) -> list[Generated]:
        rows = self._prefill()
        stop = self.processor.stop_id
        active = torch.ones(self.batch.batch_size, dtype=torch.bool, device=self.batch.input_ids.device)
        for _ in range(max_new_tokens):
            chosen = self._choose(self.backbone.unembed(rows.last))
            active = active & (chosen != stop) if stop is not None else active
            if not bool(active.any()):
                break
            self._feed(rows, chosen, active)
            self._fill_slots(rows, chosen, active)
        return [self._answer(i, finished=not bool(active[i])) for i in range(self.batch.batch_size)]

    def _prefill(self) -> Rows:
        batch, attention = self.batch, self.batch.attention
        embeds = self.model.embed(batch, self.model.encode(batch))
        rows = Rows(self.backbone, batch.batch_size, batch.task, embeds.device)
        rows.advance(embeds, attention.valid, batch.position_ids, attention.segment, attention.full)
        return rows

    def _choose(self, logits: Float[Tensor, "B v"]) -> Int[Tensor, "B"]:
        logits = logits.float().index_fill(1, self.forbidden.to(logits.device), float("-inf"))
        if self.temperature <= 0:
            return logits.argmax(-1)
        weights = (logits / self.temperature).softmax(-1).cpu()
        return torch.multinomial(weights, 1, generator=self.generator)[:, 0].to(logits.device)

    def _feed(self, rows: Rows, chosen: Int[Tensor, "B"], active: Tensor) -> None:
        """One vocabulary token per active row."""
        for i in active.nonzero()[:, 0].tolist():
            self.ids[i].append(int(chosen[i]))
        rows.advance(self.backbone.embed(chosen[:, None]), active[:, None])

    def _fill_slots(self, rows: Rows, chosen: Int[Tensor, "B"], active: Tensor) -> None:
        """Rows that have just opened a slot run it and close it; the others wait as holes."""
        for opener, (node, head, spec) in self.slots.items():
            opened = (active & (chosen == opener)).nonzero()[:, 0]
            if not len(opened):
                continue
            made = head.generate(OpenSlot(rows, opened, spec.attention == "full"), len(opened))
            for i, features in zip(opened.tolist(), made, strict=True):
                self.predictions[i].setdefault(node, []).append(features)
            for closer in self.processor.encoder.ids(spec.closes):
                waiting = torch.zeros_like(active).index_fill(0, opened, True)
                self._feed(rows, torch.full_like(chosen, closer), waiting)

    def _answer(self, row: int, finished: bool) -> Generated:
        predictions = {node: torch.stack(items) for node, items in self.predictions[row].items()}
        ids = self.ids[row]
        return Generated(text=self.processor.decode(ids), ids=ids, predictions=predictions, finished=finished)


def _openers(model: UnifiedModel, processor: Processor) -> dict[int, tuple[str, Head, SlotSpec]]:
    """Id that opens a slot -> (node, head, spec)."""
    found: dict[int, tuple[str, Head, SlotSpec]] = {}
    for node, head in model.heads.items():
        spec: SlotSpec | None = head.spec  # type: ignore[assignment]
        if spec is not None and not spec.as_text:
            found[processor.encoder.ids(spec.opens)[-1]] = (node, head, spec)  # type: ignore[assignment]
    return found


def _forbidden(processor: Processor, slots: dict[int, tuple[str, Head, SlotSpec]]) -> list[int]:
    """Ids that generation never chooses: slot positions, input media, and output slots that no head fills."""
    groups = processor.tokens.groups()
    strings = [*groups["media"], *groups["outputs"]]
    vocabulary = processor.tokenizer.get_vocab()
    return sorted({vocabulary[s] for s in strings if s in vocabulary} - set(slots))
