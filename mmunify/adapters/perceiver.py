"""Learnable latents that resample the encoder's tokens."""

from typing import Literal

import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.layers.perceiver import PerceiverBlock
from mmunify.layers.positions import with_positions
from mmunify.layers.rasters import tokens_per_frame
from mmunify.layers.temporal import TemporalPositions
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

RASTER, FRAMES = (True, "both"), ("frames", "both")


@ADAPTERS.register("perceiver")
class PerceiverAdapter(Adapter):
    """The resampler of Flamingo (https://arxiv.org/abs/2204.14198): latents attend to the tokens and to themselves.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        num_queries: Q, the number of latents and of slots.
        depth: number of blocks.
        dim: width of the latents; None = E. Another width puts a linear before the blocks.
        num_heads: heads of the attention.
        head_dim: width of a head.
        hidden_dim: width inside the feed-forward; None = 4 dim.
        positions: what the tokens are told of their place: true = 2-D positions in their raster, for towers that say
            little about place; "frames" = a learned vector per frame (Flamingo's clips); "both".

    Raises:
        UserError: a depth below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_queries: int = 64,
        depth: int = 6,
        dim: int | None = None,
        num_heads: int = 8,
        head_dim: int = 64,
        hidden_dim: int | None = None,
        positions: bool | Literal["frames", "both"] = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"a perceiver needs a depth of at least 1, got {depth}")
        dim = dim or in_dim
        self.positions, self.num_queries = positions, num_queries
        self.temporal = TemporalPositions(in_dim) if positions in FRAMES else None
        self.shrink = nn.Identity() if dim == in_dim else nn.Linear(in_dim, dim)
        self.latents = nn.Parameter(torch.randn(num_queries, dim))
        self.blocks = nn.ModuleList(
            PerceiverBlock(dim, num_heads, head_dim, hidden_dim, activation="relu") for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        """Q slots, whatever the encoder's layout."""
        return Layout.of(self.num_queries)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, Q, D)."""
        tokens = with_positions(features) if self.positions in RASTER else features.tokens
        memory = self.shrink(tokens if self.temporal is None else self.temporal(tokens, tokens_per_frame(features)))
        latents = self.latents.expand(len(memory), -1, -1)
        for block in self.blocks:
            latents = block(latents, memory, features.mask)
        return Embeds(tokens=self.project(self.norm(latents)))
