"""Every token paints a whole raster by itself, and the paintings are summed."""

import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

PAINT_STD = 0.01
"""Of the first paintings: faint beside the ground, since N of them are summed."""


@ADAPTERS.register("additive")
class AdditiveAdapter(Adapter):
    """An additive decoder (https://arxiv.org/abs/2307.02598): one token, one object; the picture is their sum.

    An MLP reads each token alone, one linear spreads what it says over all cells, and a learned ground lies below. As
    the connector of a head it makes few states into a raster of features; no state needs to know which cell it is for.

    Args:
        in_dim: width E of what it reads (given by the composer).
        out_dim: width D of its answer (given by the composer).
        grid: rows and columns of the raster that it makes.
        dim: width of the MLP; the spreading linear has dim * grid² * D weights.

    Raises:
        UserError: a size below 1.
    """

    def __init__(self, in_dim: int, out_dim: int, grid: int = 8, dim: int = 512) -> None:
        super().__init__()
        if min(grid, dim) < 1:
            raise UserError(f"grid and dim of an additive adapter are at least 1, got {grid} and {dim}")
        self.grid = grid
        self.read = nn.Sequential(
            nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU()
        )
        self.paint = nn.Parameter(torch.randn(dim, grid**2 * out_dim) * PAINT_STD)
        self.ground = nn.Parameter(torch.zeros(grid**2, out_dim))

    def layout(self, layout: Layout) -> Layout:
        """A raster of grid * grid slots, whatever it reads."""
        return Layout.of(self.grid**2, (self.grid, self.grid))

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, grid², D); masked tokens paint nothing."""
        hidden = self.read(features.tokens)
        if features.mask is not None:
            hidden = torch.where(features.mask[..., None], hidden, 0.0)
        painted = hidden.sum(dim=1) @ self.paint
        return Embeds(tokens=painted.unflatten(1, self.ground.shape) + self.ground)
