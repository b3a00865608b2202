"""The text head: next-token loss at supervised positions, and nowhere else."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmunify.parts import Head, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, SlotSpec

PAD_TO = 128
"""The supervised positions are padded to a multiple of this."""


@HEADS.register("text")
class TextHead(Head):
    """Words, task tokens and grounding tokens: all are rows of the vocabulary.

    Logits exist for n supervised positions alone, never for [B T V]; and for at most `chunk` of them at a time,
    the rest is recomputed in the backward pass.

    Args:
        chunk: supervised positions whose logits are held at once.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
    """

    def __init__(self, chunk: int = 4096, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.chunk, self.label_smoothing = chunk, label_smoothing

    @property
    def spec(self) -> SlotSpec | None:
        """Text needs no slot."""
        return None

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """The supervised tokens."""
        return {"cross_entropy": (batch.labels[:, 1:] != -100).sum()}

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """Cross-entropy summed over the supervised tokens.

        `hidden.last` is (B, T, D); position t predicts `batch.labels[:, t + 1]`. Predictions: "correct", the number
        of tokens that were the most likely ones. Its documents are told too.
        """
        if hidden is None or unembed is None:
            raise TypeError("the text head needs a backbone; this model has none")
        supervised = batch.labels[:, 1:] != -100
        document = batch.attention.document[:, :-1][supervised]
        states, targets = _to_few_lengths(hidden.last[:, :-1][supervised], batch.labels[:, 1:][supervised])
        parts, correct = [states.sum(-1)[:0]], targets.new_zeros(())
        pieces = zip(states.split(self.chunk), targets.split(self.chunk), strict=True) if len(targets) else ()
        for some_states, some_targets in pieces:
            if len(targets) > self.chunk and states.requires_grad:
                made: Any = checkpoint(self._loss, some_states, some_targets, unembed, use_reentrant=False)
                part, hits = made
            else:
                part, hits = self._loss(some_states, some_targets, unembed)
            parts, correct = [*parts, part], correct + hits
        losses = torch.cat(parts)[: len(document)]
        return HeadOutput(
            losses={"cross_entropy": losses.sum() + states.sum() * 0.0},
            counts=dict(self.counts(batch)),
            predictions={"correct": correct},
            documents={"cross_entropy": _by_document(losses, document, len(batch.task))},
        )

    def _loss(
        self, states: Float[Tensor, "n D"], targets: Int[Tensor, "n"], unembed: Unembed
    ) -> tuple[Float[Tensor, "n"], Int[Tensor, ""]]:
        logits = unembed(states).float()
        losses = F.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing, ignore_index=-100
        )
        return losses, (logits.argmax(-1) == targets).sum()


def _by_document(losses: Float[Tensor, "n"], document: Int[Tensor, "n"], number: int) -> Float[Tensor, "2 docs"]:
    """Sums and counts of the losses of every document."""
    pairs = torch.stack([losses, torch.ones_like(losses)])
    return pairs.new_zeros(2, number).index_add(1, document, pairs)


def _to_few_lengths(
    states: Float[Tensor, "n D"], targets: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "m D"], Int[Tensor, "m"]]:
    """Pad with ignored rows to a multiple of `PAD_TO`: kernels are made per shape, and n changes with every batch."""
    missing = -len(targets) % PAD_TO
    return F.pad(states, (0, 0, 0, missing)), F.pad(targets, (0, missing), value=-100)
