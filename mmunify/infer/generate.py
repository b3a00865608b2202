"""Batched generation with a key/value cache, where rows may open output slots at different times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext
from mmunify.infer.sequence import OpenSlot, SeenMedia
from mmunify.infer.sequence import Sequence as Rows
from mmunify.infer.slots import SlotKind, forbidden_ids, inside_ids, slot_kinds
from mmunify.model import UnifiedModel
from mmunify.types import Batch, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What the model wrote for one prompt.

    Attributes:
        text: decoded, special strings included, slots left out.
        ids: generated ids without the stop id.
        predictions: head node -> what it made of the output slots, in order: features [items Q E], masks
            [items F H W] as logits and boxes [items 4] in the frame of their encoder, scores [items C].
        finished: False when `max_new_tokens` cut the answer.
        wanted_more: True when the model would have opened one more slot than it may.
    """

    text: str
    ids: list[int]
    predictions: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = True
    wanted_more: bool = False


MAX_OUTPUTS = 16
"""Slots of an answer: a model that doesn't know where to end opens one after the other."""


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
    max_outputs: int = MAX_OUTPUTS,
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
        max_outputs: slots per answer; behind the last one no other can be opened.

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
            answers += _Decoder(model, processor, batch, temperature, seed).run(max_new_tokens, max_outputs)
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
        self.slots = slot_kinds(model, processor)
        self.media = SeenMedia({}, {})
        self.forbidden = torch.tensor(forbidden_ids(processor, self.slots), dtype=torch.long)
        self.generator = torch.Generator().manual_seed(seed)
        self.ids: list[list[int]] = [[] for _ in range(batch.batch_size)]
        self.predictions: list[dict[str, list[Tensor]]] = [{} for _ in range(batch.batch_size)]
        self.wanted_more = [False] * batch.batch_size

    def run(self, max_new_tokens: int, max_outputs: int) -> list[Generated]:
        rows = self._prefill()
        openers = torch.tensor(sorted(self.slots), dtype=torch.long, device=self.batch.input_ids.device)
        stop = self.processor.stop_id
        active = torch.ones(self.batch.batch_size, dtype=torch.bool, device=self.batch.input_ids.device)
        for _ in range(max_new_tokens):
            chosen = self._choose(self._limited(self.backbone.unembed(rows.last), openers, max_outputs))
            active = active & (chosen != stop) if stop is not None else active
            if not bool(active.any()):
                break
            before = rows.last
            self._feed(rows, chosen, active)
            self._fill_slots(rows, chosen, active, before)
        return [self._answer(i, finished=not bool(active[i])) for i in range(self.batch.batch_size)]

    def _prefill(self) -> Rows:
        batch, attention = self.batch, self.batch.attention
        features = self.model.encode(batch)
        self.media = SeenMedia.of(features, batch)
        embeds = self.model.embed(batch, features)
        known = TokenContext.of(batch, self.model.modalities)
        assert known.task is not None
        last = attention.valid.long().cumsum(1).argmax(1, keepdim=True)
        task = known.task.gather(1, last)[:, 0]  # of the turn that the answer belongs to
        rows = Rows(self.backbone, batch.batch_size, task, embeds.device, self.model.layers)
        rows.advance(embeds, attention.valid, batch.position_ids, attention.segment, attention.full, known)
        return rows

    def _choose(self, logits: Float[Tensor, "B v"]) -> Int[Tensor, "B"]:
        logits = logits.float().index_fill(1, self.forbidden.to(logits.device), float("-inf"))
        if self.temperature <= 0:
            return logits.argmax(-1)
        weights = (logits / self.temperature).softmax(-1).cpu()
        return torch.multinomial(weights, 1, generator=self.generator)[:, 0].to(logits.device)

    def _limited(self, logits: Float[Tensor, "B v"], openers: Int[Tensor, "k"], most: int) -> Float[Tensor, "B v"]:
        """Rows that have opened as many slots as they may open no further one."""
        opened = [sum(number in self.slots for number in ids) for ids in self.ids]
        full = torch.tensor([number >= most for number in opened], device=logits.device)
        if not bool(full.any()):
            return logits
        eager = full & torch.isin(logits.argmax(-1), openers)
        self.wanted_more = [before or bool(now) for before, now in zip(self.wanted_more, eager, strict=True)]
        closed = torch.zeros_like(logits, dtype=torch.bool)
        closed[:, openers] = full[:, None]
        return logits.float().masked_fill(closed, float("-inf"))

    def _feed(self, rows: Rows, chosen: Int[Tensor, "B"], active: Tensor) -> None:
        """One vocabulary token per active row."""
        for i in active.nonzero()[:, 0].tolist():
            self.ids[i].append(int(chosen[i]))
        rows.advance(self.backbone.embed(chosen[:, None]), active[:, None])

    def _fill_slots(self, rows: Rows, chosen: Int[Tensor, "B"], active: Tensor, before: Float[Tensor, "B D"]) -> None:
        """Rows that have just opened a slot run it and close it; the others wait as holes."""
        for opener, kind in self.slots.items():
            opened = (active & (chosen == opener)).nonzero()[:, 0]
            if not len(opened):
                continue
            slot = self._open(rows, opened, kind, opener, before)
            for node, head in kind.heads.items():
                for i, made in zip(opened.tolist(), head.generate(slot, len(opened)), strict=True):
                    self.predictions[i].setdefault(node, []).append(made)
            for closer in self.processor.encoder.ids(kind.spec.closes):
                waiting = torch.zeros_like(active).index_fill(0, opened, True)
                self._feed(rows, torch.full_like(chosen, closer), waiting)

    def _open(
        self, rows: Rows, opened: Int[Tensor, "K"], kind: SlotKind, opener: int, before: Float[Tensor, "B D"]
    ) -> OpenSlot:
        """A slot with its strings written."""
        ids = torch.tensor([opener, *inside_ids(self.processor, kind.spec)], device=opened.device)
        embeds = self.backbone.embed(ids)
        modality = 1 + max(self.model.modalities.index(f"heads.{node}") for node in kind.heads)
        full = kind.spec.attention == "full"
        slot = OpenSlot(rows, opened, full, before, embeds[0], self.media, modality)
        slot.write(embeds[1:], is_item=not kind.spec.opens)
        return slot

    def _answer(self, row: int, finished: bool) -> Generated:
        predictions = {node: torch.stack(items) for node, items in self.predictions[row].items()}
        ids, more = self.ids[row], self.wanted_more[row]
        text = self.processor.decode(ids)
        return Generated(text=text, ids=ids, predictions=predictions, finished=finished, wanted_more=more)
