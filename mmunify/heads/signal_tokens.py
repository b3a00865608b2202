"""Supervised tokens whose hidden states become the condition of a generator."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import DataError, UserError
from mmunify.heads._features import (
    build_connector,
    connect,
    distance,
    made_width,
    num_made,
    pool_tokens,
    require_distance,
)
from mmunify.heads._sources import output_sources, slot_sources
from mmunify.heads._token_head import Reads, read_slots, require_hidden, signal_slot, token_slot
from mmunify.parts import Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Condition, Features, HeadOutput, Hidden, OutputBatch, SlotSpec

LEARNED = ("first", "all", "none")


@HEADS.register("signal_tokens")
class SignalTokenHead(Head):
    """`[IMG0]` ... `[IMGr-1]`: the model writes the first one, the others follow, their states are mapped to features.

    GILL (https://arxiv.org/abs/2305.17216): 8 tokens, `learned: first`, `inputs: true`, `connector: {name: mapper}`,
    loss "euclidean". NExT-GPT (https://arxiv.org/abs/2309.05519): 4 / 24 / 8 tokens for image, video and sound, each a
    node of its own, `learned: all`, the rest as GILL. SmartEdit (https://arxiv.org/abs/2312.06739): 32 tokens,
    `learned: all`, `inputs: false`, `connector: {name: qformer, num_queries: 77, depth: 6, dim: 768}`, loss "mse". MGIE
    (https://arxiv.org/abs/2309.17102): `reads: before`.

    Args:
        in_dim: backbone width D (given by the composer).
        target_dim: width E of the target encoder (given by the composer).
        tokens: how the strings are written; `{}` is the number, from 0 on.
        num_tokens: r.
        learned: which of them carry text loss: "first", "all", "none", or a list of numbers.
        reads: the states "at" the tokens, or those that predict them ("before").
        inputs: add the tokens' own embeddings to their states.
        connector: node of the adapter between states and features; None = two linears with GELU between.
        target: encoder node whose features of the target are learned. None = the target is the features themselves
            (a `.npy` file of a text encoder's states, as GILL and NExT-GPT store them), and the connector says how
            wide they are (`out_dim`).
        loss: "mse", "cosine", "euclidean", "unit_mse", mean over an item's tokens; "none" leaves the learning to a
            linked de-tokenizer.

    Raises:
        UserError: no tokens, an unknown loss, or a number outside 0..r-1.
    """

    def __init__(
        self,
        in_dim: int,
        target_dim: int | None = None,
        tokens: str = "[IMG{}]",
        num_tokens: int = 8,
        learned: Literal["first", "all", "none"] | list[int] = "first",
        reads: Literal["at", "before"] = "at",
        inputs: bool = True,
        connector: dict | None = None,
        target: str | None = None,
        loss: str = "euclidean",
    ) -> None:
        super().__init__()
        if num_tokens < 1 or (num_tokens > 1 and tokens.format(0) == tokens.format(1)):
            raise UserError(f"signal tokens need num_tokens of at least 1 and a {{}} in tokens; got {tokens!r}")
        self.loss = loss if loss == "none" else require_distance(loss, "signal_tokens")
        self.target, self.inputs, self.num_tokens = target, inputs, num_tokens
        self.reads: Reads = reads
        self.encodes_target = loss != "none"
        given = target_dim if target else None
        width = made_width(connector, given, given if self.encodes_target else None, "signal_tokens")
        self.connector = build_connector(connector, in_dim, width, target)
        self.output_shape = (num_made(self.connector, num_tokens), width)
        strings = [tokens.format(i) for i in range(num_tokens)]
        self._spec = signal_slot(strings, [strings[i] for i in _numbers(learned, num_tokens)])

    @property
    def spec(self) -> SlotSpec | None:
        """r strings, which the model fills in as one."""
        return self._spec

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the tokens (K, r, D) -> features (K, Q, E), compared with the target's.

        Raises:
            DataError: items without a target, or targets of another shape.
        """
        hidden = require_hidden(hidden, self)
        states = read_slots(hidden.last, batch, self, self.num_tokens, self.reads)
        inputs = read_slots(hidden.inputs, batch, self, self.num_tokens) if self.inputs else None
        predicted = self._predict(states, inputs, output_sources(self, batch, features))
        if self.loss == "none":
            return HeadOutput(conditions=Condition(states=predicted))
        return HeadOutput(
            losses={self.loss: distance(self.loss, predicted, self._wanted(predicted, batch, features))},
            counts={self.loss: predicted.new_tensor(len(predicted))},
            conditions=Condition(states=predicted),
        )

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K Q E"]:
        """Features of the tokens that were written."""
        written = token_slot(slot)
        inputs = written.inputs(self.num_tokens) if self.inputs else None
        return self._predict(written.written(self.num_tokens, self.reads), inputs, slot_sources(self, slot))

    def _predict(
        self, states: Float[Tensor, "K r D"], inputs: Float[Tensor, "K r D"] | None, source: Features | None
    ) -> Float[Tensor, "K Q E"]:
        given = states if inputs is None else states + inputs.to(states.dtype)
        return connect(self.connector, given, source=source)

    def _wanted(
        self, predicted: Float[Tensor, "K Q E"], batch: Batch, features: Mapping[str, Features]
    ) -> Float[Tensor, "K Q E"]:
        outputs = self.items(batch)
        if outputs is None or not len(predicted):
            return predicted
        if self.target is not None and "target" in features:
            return pool_tokens(features["target"], predicted.shape[1])
        return _given(outputs, predicted, self.node)


def _given(outputs: OutputBatch, predicted: Float[Tensor, "K Q E"], node: str) -> Float[Tensor, "K Q E"]:
    """Targets that are features themselves."""
    target = outputs.target
    if not isinstance(target, Tensor) or target.shape != predicted.shape:
        shapes = "none" if target is None else {tuple(item.shape) for item in target}
        raise DataError(
            f"{len(predicted)} outputs of node {node!r} learn features of shape {tuple(predicted.shape[1:])}, and "
            f"their targets are {shapes}; store features of that shape, or name a target: encoder node"
        )
    return target.to(torch.promote_types(predicted.dtype, torch.float32))  # stored in float16, they can overflow


def _numbers(learned: str | list[int], num_tokens: int) -> list[int]:
    if isinstance(learned, str):
        if learned not in LEARNED:
            raise UserError(
                f"learned of a signal_tokens head is one of {LEARNED} or a list of numbers; got {learned!r}"
            )
        return {"first": [0], "all": list(range(num_tokens)), "none": []}[learned]
    wrong = [number for number in learned if not 0 <= number < num_tokens]
    if wrong:
        raise UserError(f"learned of a signal_tokens head names {wrong}; its tokens are 0..{num_tokens - 1}")
    return learned
