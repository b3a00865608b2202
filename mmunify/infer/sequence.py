"""The sequence under construction: cached positions of all rows, where some rows may wait while others go on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.parts import Backbone
from mmunify.types import Attention, Batch, Features


class Sequence:
    """Rows that grow together, column by column. A row that waits leaves a masked hole.

    Args:
        backbone: the language model, with a key/value cache.
        rows: B.
        task: [B] task index of every row: that of the turn that it stands in.
        layers: hidden states to remember of all positions; -1 = the last.
    """

    def __init__(
        self,
        backbone: Backbone,
        rows: int,
        task: Int[Tensor, "B"],
        device: torch.device,
        layers: Collection[int] = (),
    ) -> None:
        self.backbone, self.task = backbone, task
        self.history: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        self.cache: Any = backbone.new_cache()
        self.valid = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        self.segment = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self.full = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        self.next_position = torch.zeros(rows, dtype=torch.long, device=device)
        self.last = torch.zeros(rows, backbone.dim, device=device)
        self._segments = 1_000_000  # above any segment of a prompt

    def advance(
        self,
        embeds: Float[Tensor, "B S D"],
        real: Bool[Tensor, "B S"],
        position_ids: Int[Tensor, "B S"] | None = None,
        segment: Int[Tensor, "B S"] | None = None,
        full: Bool[Tensor, "B S"] | None = None,
        known: TokenContext | None = None,
    ) -> Float[Tensor, "B S D"]:
        """Append S columns, real where `real`; returns their states and remembers each row's last real one.

        `known` is what gates may know of the columns; without it they are text of the row's task.
        """
        following = (self.next_position[:, None] + real.cumsum(1) - 1).clamp(min=0)
        places = following if position_ids is None else position_ids
        nothing = torch.zeros_like(real)
        self.valid = torch.cat([self.valid, real], dim=1)
        self.segment = torch.cat([self.segment, nothing.long() if segment is None else segment], dim=1)
        self.full = torch.cat([self.full, nothing if full is None else full], dim=1)
        with use_tokens(known or self.context(real, nothing.long())):
            asked = [layer for layer in self.history if layer != -1]
            hidden = self.backbone(embeds, self._attention(), places, layers=asked, cache=self.cache)
        for layer, parts in self.history.items():
            parts.append(hidden.last if layer == -1 else hidden.layers[layer])
        highest = places.masked_fill(~real, -1).amax(1)
        self.next_position = torch.maximum(self.next_position, highest + 1)
        index = torch.arange(real.shape[1], device=real.device).expand_as(real).masked_fill(~real, -1).amax(1)
        states = hidden.last[torch.arange(len(index), device=index.device), index.clamp(min=0)]
        self.last = torch.where((index >= 0)[:, None], states.to(self.last.dtype), self.last)
        return hidden.last

    def context(self, real: Bool[Tensor, "B S"], modality: Int[Tensor, "B S"]) -> TokenContext:
        """What gates may know of S further columns."""
        document = torch.arange(len(real), device=real.device)[:, None].expand_as(real)
        return TokenContext(valid=real, task=self.task[document], document=document, modality=modality)

    def new_segment(self) -> int:
        """An id that no segment has yet."""
        self._segments += 1
        return self._segments

    def snapshot(self) -> tuple[Any, ...]:
        """What `restore` needs to forget the columns that follow."""
        history = {layer: list(parts) for layer, parts in self.history.items()}
        return self.valid, self.segment, self.full, self.next_position, self.last, history

    def restore(self, snapshot: tuple[Any, ...], num_columns: int) -> None:
        """Forget the last columns again."""
        self.valid, self.segment, self.full, self.next_position, self.last, self.history = snapshot
        self.cache.crop(-num_columns)

    def _attention(self) -> Attention:
        document = torch.arange(len(self.valid), device=self.valid.device)[:, None].expand_as(self.valid)
        return Attention(
            document=document.where(self.valid, -1), segment=self.segment, full=self.full, valid=self.valid
        )


@dataclass(frozen=True, slots=True)
class SeenMedia:
    """Features of the prompt's media, with the row of every item, by encoder node."""

    features: Mapping[str, Features]
    rows: Mapping[str, Int[Tensor, "M"]]

    @classmethod
    def of(cls, features: Mapping[str, Features], batch: Batch) -> "SeenMedia":
        """What the encoders made of a batch of prompts."""
        return cls(features, {node: batch.media[node].document for node in features})

    def latest(self, node: str, rows: Int[Tensor, "K"]) -> Features:
        """Features of the latest item of every row.

        Raises:
            UserError: a row without a medium of the node.
        """
        features, given = self.found(node, rows)
        if features is None:
            raise UserError(f"an output needs a medium of encoder node {node!r} in the prompt, and there is none")
        if not bool(given.all()):
            raise UserError(f"an output needs a medium of encoder node {node!r} in its prompt; a prompt has none")
        return features

    def found(self, node: str, rows: Int[Tensor, "K"]) -> tuple[Features | None, Bool[Tensor, "K"]]:
        """Features of the latest item of every row, any item's for rows without one, and which rows have one."""
        if node not in self.features:
            return None, torch.zeros_like(rows, dtype=torch.bool)
        features, owners = self.features[node], self.rows[node]
        numbers = torch.arange(len(owners), device=owners.device)
        latest = torch.stack([torch.where(owners == row, numbers, -1).amax() for row in rows.to(owners.device)])
        index = latest.clamp(min=0)
        mask = None if features.mask is None else features.mask[index]
        return Features(tokens=features.tokens[index], mask=mask, grid=features.grid), latest >= 0


class OpenSlot:
    """The open output slots of some rows: what a head's `generate` runs its embeddings through.

    Args:
        sequence: all rows; they stand behind the string that opens the slot.
        rows: [K] those with an open slot; the others wait.
        full: whether the slot's positions see each other in both directions.
        before: [B D] states that predicted the opening string.
        opener: [D] embedding of the opening string.
        media: of the prompt.
        modality: of the slot's positions, as gates know it.
    """

    def __init__(
        self,
        sequence: Sequence,
        rows: Int[Tensor, "K"],
        full: bool,
        before: Float[Tensor, "B D"] | None = None,
        opener: Float[Tensor, "D"] | None = None,
        media: SeenMedia | None = None,
        modality: int = 0,
    ) -> None:
        self.sequence, self.rows, self.full, self.modality = sequence, rows, full, modality
        self._seen = media or SeenMedia({}, {})
        self._prefix = {layer: torch.cat(parts, dim=1) for layer, parts in sequence.history.items()}
        self._real = sequence.valid
        at = sequence.last[rows, None]
        self._states = at if before is None else torch.cat([before[rows, None].to(at.dtype), at], dim=1)
        self._inputs = at[:, :0] if opener is None else opener.expand(len(rows), 1, -1)
        self._first = 0

    def write(self, embeds: Float[Tensor, "n D"], is_item: bool) -> None:
        """Run the strings inside the item; `is_item`: the opening string is the first of them, not a delimiter."""
        self._first = 0 if is_item else 1
        if len(embeds):
            states = self.run(embeds.expand(len(self.rows), -1, -1))
            self._states = torch.cat([self._states, states], dim=1)
            self._inputs = torch.cat([self._inputs, embeds.expand(len(self.rows), -1, -1)], dim=1)

    def written(self, num: int, reads: str = "at") -> Float[Tensor, "K n D"]:
        """States of the first `num` strings of the item, or of the positions before them."""
        first = self._first + (reads == "at")
        return self._states[:, first : first + num]

    def inputs(self, num: int) -> Float[Tensor, "K n D"]:
        """Embeddings of the first `num` strings of the item."""
        return self._inputs[:, self._first : self._first + num]

    def prefix(self, layer: int = -1) -> tuple[Float[Tensor, "K T D"], Bool[Tensor, "K T"]]:
        """States of a layer of all positions up to the opening one, and which of them are real."""
        return self._prefix[layer][self.rows], self._real[self.rows]

    def medium(self, node: str) -> Features:
        """Features of the latest medium of every open row.

        Raises:
            UserError: a row has none.
        """
        return self._seen.latest(node, self.rows)

    def source(self, node: str) -> tuple[Features | None, Bool[Tensor, "K"]]:
        """Features of the latest medium of every open row, and which rows have one."""
        return self._seen.found(node, self.rows)

    def run(self, embeds: Float[Tensor, "K S D"], commit: bool = True) -> Float[Tensor, "K S D"]:
        """States of S further positions; without `commit` the sequence forgets them again."""
        sequence, (_, steps, width) = self.sequence, embeds.shape
        everyone = embeds.new_zeros(len(sequence.valid), steps, width)
        everyone[self.rows] = embeds
        real = torch.zeros(everyone.shape[:2], dtype=torch.bool, device=embeds.device)
        real[self.rows] = True
        before = None if commit else sequence.snapshot()
        segment = real.long() * sequence.new_segment()
        known = sequence.context(real, real.long() * self.modality)
        states = sequence.advance(everyone, real, segment=segment, full=real & self.full, known=known)[self.rows]
        if before is not None:
            sequence.restore(before, steps)
        return states
