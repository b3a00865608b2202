"""Learnable queries in an output slot, whose hidden states regress another encoder's features of the target."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.heads._features import (
    build_connector,
    connect,
    distance,
    made_width,
    num_made,
    require_distance,
    wanted_tokens,
)
from mmunify.heads._sources import EditGain, output_sources, slot_sources
from mmunify.heads._token_head import closing, read_slots, require_hidden, token_slot
from mmunify.layers.feature_flow import FeatureFlow
from mmunify.layers.idle import touch
from mmunify.layers.part_options import read_options
from mmunify.layers.streams import Streams
from mmunify.parts import Draw, Head, Slot, Unembed
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
        loss: "mse", "cosine", "euclidean", or "unit_mse" (targets of unit length), mean over an item's tokens; "flow" =
            the features are drawn by flow matching from what the connector says, as in BLIP3-o
            (https://arxiv.org/abs/2505.09568), `{name: flow, ...}` with arguments of `FeatureFlow`; "none" = a linked
            de-tokenizer teaches it. `{name: mse, edit_gain: g}` multiplies the distance of items that start from a
            picture, see `EditGain`.
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
        loss: str | dict = "mse",
        attention: Literal["causal", "full"] = "causal",
        opens: str = "<img>",
        rows: str | None = None,
        pool: Literal["2d", "1d"] = "2d",
    ) -> None:
        super().__init__()
        given = {"name": loss} if isinstance(loss, str) else loss
        name, options = str(given.get("name")), {key: value for key, value in given.items() if key != "name"}
        self.loss = name if name in ("flow", "none") else require_distance(name, "queries")
        self.target, self.pool, self.encodes_target = target, pool, name != "none"
        self.num_queries, self.dim = num_queries, in_dim
        self.queries = None if rows else nn.Parameter(torch.randn(num_queries, in_dim) * 0.02)
        width = made_width(connector, target_dim, target_dim if self.encodes_target else None, "queries")
        self.connector = build_connector(connector, in_dim, width, target)
        self.flow = read_options(FeatureFlow, options, "loss", features_dim=width) if name == "flow" else None
        self.gain = read_options(EditGain, {} if self.flow else options, "loss")
        self.gain.check(self, self.loss)
        self.output_shape = (num_made(self.connector, num_queries), width)
        strings = tuple(Run(token=rows.format(i)) for i in range(num_queries)) if rows else ()
        self._spec = SlotSpec(
            opens=opens,
            closes=closing(opens, "queries"),
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
        source = output_sources(self, batch, features)
        predicted = connect(self.connector, states, source=source)
        if self.loss == "none":
            return HeadOutput(conditions=Condition(states=predicted))
        wanted = wanted_tokens(features, predicted, self.node, self.pool)
        loss, predicted = self._compare(predicted, wanted, batch, source)
        return HeadOutput(
            losses={self.loss: loss},
            counts={self.loss: predicted.new_tensor(len(predicted))},
            conditions=Condition(states=predicted),
        )

    def _compare(
        self, predicted: Float[Tensor, "K Q E"], wanted: Float[Tensor, "K Q E"], batch: Batch, source: Features | None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "K Q E"]]:
        """The loss, and the features that a de-tokenizer goes on with."""
        if self.flow is None:
            scale = self.gain(wanted, source).sqrt()
            return distance(self.loss, predicted * scale, wanted * scale), predicted
        outputs = self.items(batch)
        keys = [] if outputs is None else [batch.keys[i] for i in outputs.document.tolist()]
        draw = Draw(seed=batch.seed, step=batch.step, keys=keys, part=f"heads.{self.node}")
        if not keys:
            return touch(predicted.sum() * 0, [self.flow]), predicted
        return self.flow.learn(predicted, wanted, Streams(draw, predicted.device))

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K Q E"]:
        """One call: the queries don't depend on each other's predictions."""
        if self.queries is None:
            states = token_slot(slot).written(self.num_queries, "at")
        else:
            states = slot.run(self.queries.expand(num_items, -1, -1))
        predicted = connect(self.connector, states, source=slot_sources(self, slot))
        return predicted if self.flow is None else self.flow.draw(predicted)
