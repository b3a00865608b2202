"""Where a view lies in its picture, for any number of views."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TilePositions(nn.Module):
    """SEED-X's extrapolatable 2-D position embedding (https://arxiv.org/abs/2404.14396, section 3.1).

    Four vectors stand for left, right, top and bottom: a view whose centre is at (x, y) gets
    (x e0 + y e1 + (1 - x) e2 + (1 - y) e3) / 2. It depends on the centre alone, so it is defined for every grid; the
    whole picture, at (0.5, 0.5), gets the mean of the four.

    Args:
        dim: width of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.edges = nn.Parameter(torch.randn(4, dim) * dim**-0.5)

    def forward(self, centers: Float[Tensor, "M 2"]) -> Float[Tensor, "M dim"]:
        """Centres in 0..1 -> one vector per view."""
        return torch.cat([centers, 1 - centers], dim=1).to(self.edges.dtype) @ self.edges / 2
