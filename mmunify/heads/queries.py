"""Learnable queries in an output slot, whose hidden states regress another encoder's features of the target."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import DataError
from mmunify.heads._features import build_connector, connect, distance, pool_tokens, require_distance
from mmunify.heads._token_head import read_slots, require_hidden, token_slot
from mmunify.parts import Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Condition, Embeds, Features, HeadOutput, Hidden, Layout, OutputBatch, Run, SlotSpec


@HEADS.register("queries")
class QueryHead(Head):
    """SEED-X's output side (https://arxiv.org/abs/2404.14396): `<img>` opens a slot of Q learnable queries.

    Of the slot, the model learns to write the opening string alone. SEED-X as published: 64 queries with
    `rows: "<img_{:05d}>"`, `connector: {name: resampler, num_queries: 64, num_heads: 32}`, `pool: 1d`, and weight 6.
    MetaQuery (https://arxiv.org/abs/2504.06256): 256 queries, `connector: {name: encoder_mlp}`.

    Args:
        in_dim: backbone width D (given by the composer).
        target_dim: width E of the target encoder (given by the composer).
        num_queries: Q.
        target: encoder node whose features of the target picture are learned.
        connector: node of the adapter between states and predictions; None = two linears with GELU between. The
            target is pooled to as many tokens as it makes.
        loss: "mse", "cosine", "euclidean", or "unit_mse" (targets of unit length), mean over an item's tokens.
        attention: "causal" or "full" among the queries.
        opens: string before the slot; the one after it is its closing tag.
        rows: None = the queries are a parameter of the head; otherwise how their vocabulary strings are written
            ("<img_{:05d}>"), and they are rows of the backbone's table.
        pool: how a target of more tokens is averaged, see `pool_tokens`.
    """

    def __init__(
        self,
        in_dim: int,
        target_dim: int,
        num_queries: int = 64,
        target: str = "image",
        connector: dict | None = None,
        loss: str = "mse",
        attention: Literal["causal", "full"] = "causal",
        opens: str = "<img>",
        rows: str | None = None,
        pool: Literal["2d", "1d"] = "2d",
    ) -> None:
        super().__init__()
        self.target, self.loss, self.pool = target, require_distance(loss, "queries"), pool
        self.num_queries, self.dim = num_queries, in_dim
        self.queries = None if rows else nn.Parameter(torch.randn(num_queries, in_dim) * 0.02)
        self.connector = build_connector(connector, in_dim, target_dim, "queries")
        strings = tuple(Run(token=rows.format(i)) for i in range(num_queries)) if rows else ()
        self._spec = SlotSpec(
            opens=opens,
            closes=opens.replace("<", "</", 1),
            layout=Layout(runs=strings) if rows else Layout.of(num_queries),
            learned=frozenset({"opens"}),
            attention=attention,
        )

    @property
    def spec(self) -> SlotSpec | None:
        """A slot of Q positions."""
        return self._spec

    def slot_inputs(self, outputs: OutputBatch, features: Features | None, embeds: Embeds | None) -> Embeds | None:
        """The same queries for each of the K items: (K, Q, D); None where they are rows of the vocabulary."""
        return None if self.queries is None else Embeds(tokens=self.queries.expand(len(outputs.document), -1, -1))

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the slots (K, Q, D) -> features (K, Q', E), compared with the target's.

        Raises:
            DataError: items without a target picture.
        """
        states = read_slots(require_hidden(hidden, self).last, batch, self, self.num_queries)
        predicted = connect(self.connector, states)
        target = features.get("target")
        if target is None and len(predicted):
            raise DataError(f"{len(predicted)} output items of node {self.node!r} have no target picture to learn from")
        wanted = predicted if target is None else pool_tokens(target, predicted.shape[1], self.pool)
        return HeadOutput(
            losses={self.loss: distance(self.loss, predicted, wanted)},
            counts={self.loss: predicted.new_tensor(len(predicted))},
            conditions=Condition(states=predicted),
        )

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K Q E"]:
        """One call: the queries don't depend on each other's predictions."""
        if self.queries is None:
            states = token_slot(slot).written(self.num_queries, "at")
        else:
            states = slot.run(self.queries.expand(num_items, -1, -1))
        return connect(self.connector, states)
