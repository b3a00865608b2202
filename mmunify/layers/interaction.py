"""Words and a source picture that change each other before an edit."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import DataError
from mmunify.layers.two_way import TwoWayTransformer
from mmunify.types import Features


class Interaction(nn.Module):
    """The bidirectional interaction module of SmartEdit (https://arxiv.org/abs/2312.06739).

    Both answers start at zero, so that a U-Net that edits already goes on as it did.

    Args:
        dim: width C of the condition's states.
        features_dim: width of the source's features, and of the transformer.
        channels: of the U-Net behind its first convolution.
        depth: blocks of the transformer.
        num_heads: of every attention.
        hidden_dim: inside the feed-forwards.
        share: of the answer that is added to the states.
    """

    def __init__(
        self,
        dim: int,
        features_dim: int,
        channels: int,
        depth: int = 2,
        num_heads: int = 8,
        hidden_dim: int = 2048,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        self.share = share
        self.expand = nn.Linear(dim, features_dim)
        self.transformer = TwoWayTransformer(features_dim, depth, num_heads, hidden_dim)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2, features_dim // 2))
        self.reduce = _silent(nn.Linear(features_dim, dim))
        self.spread = _silent(nn.Conv2d(features_dim, channels, 1))

    def forward(
        self,
        states: Float[Tensor, "K Q C"],
        source: Features | None,
        known: Bool[Tensor, "K"],
        size: tuple[int, int],
    ) -> tuple[Float[Tensor, "K Q C"], Float[Tensor, "K c h w"]]:
        """Changed states, and what is added behind the U-Net's first convolution; both untouched where not `known`.

        Args:
            source: features of the source picture, a raster.
            known: True where the source may be used.
            size: height and width of the U-Net's input.

        Raises:
            DataError: no features, or features without a raster.
        """
        if source is None or source.grid is None:
            raise DataError(
                "an interaction reads features of the source picture with a grid, and this condition has none: "
                "fill Condition.features, or say interaction: false"
            )
        places = self._places(source.grid, states)
        words, raster = self.transformer(self.expand(states), source.tokens, places)
        used = known[:, None, None].to(states.dtype)
        shown = raster.transpose(1, 2).unflatten(2, source.grid)
        shown = F.interpolate(shown, size=size, mode="bilinear", align_corners=False)
        return states + used * self.share * self.reduce(words), used[..., None] * self.spread(shown)

    def _places(self, grid: tuple[int, int], like: Tensor) -> Float[Tensor, "N D"]:
        """Sines and cosines of the cells' centres at random frequencies, as SAM places its raster."""
        down, across = ((torch.arange(n, device=like.device) + 0.5) / n for n in grid)
        centres = torch.stack([across.repeat(grid[0]), down.repeat_interleave(grid[1])], dim=1)
        angles = 2 * math.pi * (2 * centres - 1) @ self.frequencies.float()
        return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


def _silent(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
