"""Position embeddings without parameters."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import DataError, UserError
from mmunify.types import Features


def sincos_1d(positions: Float[Tensor, "n"], dim: int, temperature: float = 10_000.0) -> Float[Tensor, "n dim"]:
    """Sines then cosines of `positions` at dim/2 geometrically spaced frequencies (https://arxiv.org/abs/1706.03762).

    Raises:
        UserError: `dim` is odd.
    """
    if dim % 2:
        raise UserError(f"sine-cosine positions need an even width, got {dim}")
    frequencies = temperature ** -torch.linspace(0, 1, dim // 2 + 1, device=positions.device)[:-1]
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(
    grid: tuple[int, int], dim: int, device: torch.device | str = "cpu", temperature: float = 10_000.0
) -> Float[Tensor, "n dim"]:
    """Positions of a raster of rows x columns: half of the width for the row, half for the column.

    Raises:
        UserError: `dim` is no multiple of 4.
    """
    if dim % 4:
        raise UserError(f"2-D sine-cosine positions need a width that is a multiple of 4, got {dim}")
    rows, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in grid)
    down = sincos_1d(rows, dim // 2, temperature).repeat_interleave(grid[1], dim=0)
    across = sincos_1d(columns, dim // 2, temperature).repeat(grid[0], 1)
    return torch.cat([down, across], dim=1)


def with_positions(features: Features) -> Float[Tensor, "M N E"]:
    """The tokens of a raster plus their 2-D positions; those of several rasters (frames, tiles) get the same ones.

    Raises:
        DataError: the features have no grid.
    """
    tokens = features.tokens
    if features.grid is None:
        raise DataError(f"positions: true needs features with a grid; {tokens.shape[1]} tokens came without one")
    table = sincos_2d(features.grid, tokens.shape[2], device=tokens.device).to(tokens.dtype)
    return tokens + table.repeat(tokens.shape[1] // len(table), 1)
