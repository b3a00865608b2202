"""The sequence under construction: cached positions of all rows, where some rows may wait while others go on."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.parts import Backbone
from mmunify.types import Attention


class Sequence:
    """Rows that grow together, column by column. A row that waits leaves a masked hole.

    Args:
        backbone: the language model, with a key/value cache.
        rows: B.
        task: [B] task index of every row's document.
    """

    def __init__(self, backbone: Backbone, rows: int, task: Int[Tensor, "B"], device: torch.device) -> None:
        self.backbone, self.task = backbone, task
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
    ) -> Float[Tensor, "B S D"]:
        """Append S columns, real where `real`; returns their states and remembers each row's last real one."""
        if position_ids is None:
            position_ids = (self.next_position[:, None] + real.cumsum(1) - 1).clamp(min=0)
        nothing = torch.zeros_like(real)
        self.valid = torch.cat([self.valid, real], dim=1)
        self.segment = torch.cat([self.segment, nothing.long() if segment is None else segment], dim=1)
        self.full = torch.cat([self.full, nothing if full is None else full], dim=1)
        document = torch.arange(len(real), device=real.device)[:, None].expand_as(real)
        with use_tokens(TokenContext(valid=real, task=self.task[document], document=document)):
            hidden = self.backbone(embeds, self._attention(), position_ids, cache=self.cache)
        highest = torch.where(real, position_ids, -1).amax(1)
        self.next_position = torch.maximum(self.next_position, highest + 1)
        index = torch.arange(real.shape[1], device=real.device).expand_as(real).masked_fill(~real, -1).amax(1)
        states = hidden.last[torch.arange(len(index), device=index.device), index.clamp(min=0)]
        self.last = torch.where((index >= 0)[:, None], states.to(self.last.dtype), self.last)
        return hidden.last

    def _attention(self) -> Attention:
        document = torch.arange(len(self.valid), device=self.valid.device)[:, None].expand_as(self.valid)
        return Attention(
            document=document.where(self.valid, -1), segment=self.segment, full=self.full, valid=self.valid
        )


class OpenSlot:
    """The open output slots of some rows: what a head's `generate` runs its embeddings through.

    Args:
        sequence: all rows.
        rows: [K] those with an open slot; the others wait.
        full: whether the slot's positions see each other in both directions.
    """

    def __init__(self, sequence: Sequence, rows: Int[Tensor, "K"], full: bool) -> None:
        self.sequence, self.rows, self.full = sequence, rows, full

    def run(self, embeds: Float[Tensor, "K S D"], commit: bool = True) -> Float[Tensor, "K S D"]:
        """States of S further positions; without `commit` the sequence forgets them again."""
        sequence, (_, steps, width) = self.sequence, embeds.shape
        everyone = embeds.new_zeros(len(sequence.valid), steps, width)
        everyone[self.rows] = embeds
        real = torch.zeros(everyone.shape[:2], dtype=torch.bool, device=embeds.device)
        real[self.rows] = True
        sequence._segments += 1
        before = (sequence.valid, sequence.segment, sequence.full, sequence.next_position, sequence.last)
        states = sequence.advance(everyone, real, segment=real.long() * sequence._segments, full=real & self.full)[
            self.rows
        ]
        if not commit:
            sequence.valid, sequence.segment, sequence.full, sequence.next_position, sequence.last = before
            sequence.cache.crop(-steps)
        return states
