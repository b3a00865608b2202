"""Convolutions, an adaptive pooling, convolutions."""

import math
from typing import Any

import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.layers.projector import projector
from mmunify.layers.rasters import (
    from_raster,
    join_frames,
    map_slots,
    resize_table,
    slots_mask,
    split_frames,
    to_raster,
)
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("c_abstractor")
class CAbstractorAdapter(Adapter):
    """The C-Abstractor of Honeybee (https://arxiv.org/abs/2312.06742): it keeps places, whatever the number of slots.

    RegNet blocks, average pooling to a square of slots, RegNet blocks, then a readout of two linears with SiLU between
    them. Every frame or tile goes through it for itself. Masked tokens are read as zeros, like the convolutions' own
    padding. `net` and `readout` have the names of the public code.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        num_queries: slots of a frame or tile, a square number.
        dim: channels of the convolutions.
        depth: RegNet blocks before and after the pooling.
        positions: (rows, columns) of a learned table that is added to the tokens (Honeybee: the encoder's raster),
            resized for other rasters; None = no positions.
        norm: layer norm of the tokens first.

    Raises:
        UserError: `num_queries` is no square, a depth below 1, or `positions` that are no two numbers.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_queries: int = 144,
        dim: int = 1024,
        depth: int = 3,
        positions: list[int] | None = None,
        norm: bool = False,
    ) -> None:
        super().__init__()
        side = math.isqrt(max(num_queries, 0))
        if not side or side * side != num_queries or depth < 1:
            raise UserError(
                f"a c_abstractor needs a square num_queries (1, 4, 9, ...) and a depth of at least 1, "
                f"got {num_queries} and {depth}"
            )
        self.grid, self.num_queries = (side, side), num_queries
        self._table = None if positions is None else _pair(positions)
        self.norm = nn.LayerNorm(in_dim) if norm else nn.Identity()
        self.positions = None if self._table is None else nn.Parameter(_draw(math.prod(self._table), in_dim))
        self.net = nn.Sequential(_stage(depth, in_dim, dim), nn.AdaptiveAvgPool2d(side), _stage(depth, dim, dim))
        self.readout = projector(dim, out_dim, out_dim)
        self.readout[1] = nn.SiLU()

    def layout(self, layout: Layout) -> Layout:
        """A square of slots for every frame or tile; strings stay where they are."""
        return map_slots(layout, self.num_queries, self.grid)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, F N, E) -> (M, F Q, D)."""
        frames, num_frames = split_frames(features)
        placed = Features(tokens=self._place(frames), mask=frames.mask, grid=frames.grid)
        slots = from_raster(self.net(to_raster(placed, "c_abstractor")))
        return join_frames(self.readout(slots), slots_mask(frames, self.num_queries, num_frames), num_frames)

    def _place(self, frames: Features) -> torch.Tensor:
        tokens = self.norm(frames.tokens)
        if self.positions is None or self._table is None or frames.grid is None:
            return tokens
        return tokens + resize_table(self.positions, self._table, frames.grid)


def _stage(depth: int, in_dim: int, dim: int) -> Any:
    """Bottlenecks of RegNet with depth-wise convolutions and squeeze-and-excitation."""
    from timm.layers import LayerNorm2d
    from timm.models.regnet import RegStage

    return RegStage(depth, in_dim, dim, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)


def _pair(numbers: list[int]) -> tuple[int, int]:
    if len(numbers) != 2 or min(numbers) < 1:
        raise UserError(f"positions of a c_abstractor are [rows, columns] of its table, got {numbers}")
    return numbers[0], numbers[1]


def _draw(num_rows: int, dim: int) -> torch.Tensor:
    return nn.init.trunc_normal_(torch.empty(num_rows, dim), std=0.02)
