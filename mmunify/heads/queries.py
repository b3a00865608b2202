"""Learnable queries in an output slot, whose hidden states regress another encoder's features of the target."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.parts import Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Condition, Embeds, Features, HeadOutput, Hidden, Layout, OutputBatch, SlotSpec


@HEADS.register("queries")
class QueryHead(Head):
    """SEED-X's output side (https://arxiv.org/abs/2404.14396): `<img>` opens a slot of Q learnable queries.

    Args:
        in_dim: backbone width D (given by the composer).
        target_dim: width E of the target encoder (given by the composer).
        num_queries: Q, a square number where the target is a raster of another size (it is pooled to Q).
        target: encoder node whose features of the target picture are learned.
        hidden_dim: width of the two-layer connector; None = D.
        loss: "mse" or "cosine", averaged over an item's Q x E numbers (Q for cosine).
        attention: "causal" or "full" among the queries.
        opens, closes: vocabulary strings around the slot; the model learns to write the first.
    """

    def __init__(
        self,
        in_dim: int,
        target_dim: int,
        num_queries: int = 64,
        target: str = "image",
        hidden_dim: int | None = None,
        loss: str = "mse",
        attention: str = "causal",
        opens: str = "<img>",
        closes: str = "</img>",
    ) -> None:
        super().__init__()
        if loss not in ("mse", "cosine"):
            raise UserError(f"loss of a queries head is 'mse' or 'cosine', got {loss!r}")
        self.target, self.loss = target, loss
        self.queries = nn.Parameter(torch.randn(num_queries, in_dim) * 0.02)
        width = hidden_dim or in_dim
        self.connector = nn.Sequential(nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, target_dim))
        self._spec = SlotSpec(
            opens=opens,
            closes=closes,
            layout=Layout.of(num_queries),
            learned=frozenset({"opens"}),
            attention=attention,  # type: ignore[arg-type]
        )

    @property
    def spec(self) -> SlotSpec | None:
        """A slot of Q positions."""
        return self._spec

    def slot_inputs(self, outputs: OutputBatch, features: Features | None, embeds: Embeds | None) -> Embeds | None:
        """The same queries for each of the K items: (K, Q, D)."""
        return Embeds(tokens=self.queries.expand(len(outputs.document), -1, -1))

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the slots (K, Q, D) -> features (K, Q, E), compared with the target's."""
        predicted = self.connector(self._slot_states(hidden, batch))
        target = features.get("target")
        if target is None and len(predicted):
            raise DataError(f"{len(predicted)} output items of node {self.node!r} have no target picture to learn from")
        wanted = predicted if target is None else pool_tokens(target, predicted.shape[1])
        return HeadOutput(
            losses={self.loss: self._distance(predicted, wanted)},
            counts={self.loss: predicted.new_tensor(len(predicted))},
            conditions=Condition(states=predicted),
        )

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K Q E"]:
        """One call: the queries don't depend on each other's predictions."""
        return self.connector(slot.run(self.queries.expand(num_items, -1, -1)))

    def _slot_states(self, hidden: Hidden | None, batch: Batch) -> Float[Tensor, "K Q D"]:
        if hidden is None:
            raise TypeError("a queries head needs a backbone; this model has none")
        items = self.items(batch)
        num_queries, width = self.queries.shape
        if items is None or items.slots is None:
            return self.queries[None, :, :][:0]
        return hidden.last[items.slots].reshape(-1, num_queries, width)

    def _distance(self, predicted: Float[Tensor, "K Q E"], wanted: Float[Tensor, "K Q E"]) -> Float[Tensor, ""]:
        if self.loss == "mse":
            return (predicted - wanted).square().mean((1, 2)).sum()
        return (1 - F.cosine_similarity(predicted, wanted, dim=-1)).mean(1).sum()


def pool_tokens(features: Features, num_tokens: int) -> Float[Tensor, "K Q E"]:
    """Average a raster of N tokens down to `num_tokens`, both square; tokens that fit already pass unchanged.

    Raises:
        UserError: the two can't be matched.
    """
    tokens = features.tokens
    if tokens.shape[1] == num_tokens:
        return tokens
    side = math.isqrt(num_tokens)
    if features.grid is None or side * side != num_tokens:
        raise UserError(
            f"{num_tokens} queries can't be matched with {tokens.shape[1]} target tokens (grid {features.grid}): "
            f"choose num_queries={tokens.shape[1]} or a square number"
        )
    raster = tokens.transpose(1, 2).unflatten(2, features.grid)
    return F.adaptive_avg_pool2d(raster, side).flatten(2).transpose(1, 2)
