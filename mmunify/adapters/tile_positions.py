"""Any adapter, and behind it where in the picture every tile lies."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import DataError
from mmunify.layers.tile_positions import TilePositions
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

WHOLE = 0.5
"""Centre of a picture that is seen as a whole."""


@ADAPTERS.register("tile_positions")
class TilePositionsAdapter(Adapter):
    """SEED-X's extrapolatable position embedding as it was released (https://arxiv.org/abs/2404.14396): in the width of
    the backbone, added to all slots of a tile behind the resampler.

    Its encoder is `seedx_tiles` with `positions: false`; features without centres are those of a whole picture.

    Args:
        out_dim: backbone width D (given by the composer).
        adapter: node of the adapter that makes the slots of every tile.
    """

    def __init__(self, out_dim: int, adapter: Adapter) -> None:
        super().__init__()
        self.adapter, self.positions = adapter, TilePositions(out_dim)
        self.needs, self.side_text = adapter.needs, adapter.side_text

    def layout(self, layout: Layout) -> Layout:
        """That of the adapter."""
        return self.adapter.layout(layout)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, F N, E) -> (M, F S, D).

        Raises:
            DataError: an adapter that doesn't keep tiles apart.
        """
        made = self.adapter(features, context)
        where = self._where(features, len(made.tokens)).to(made.tokens.dtype)
        num_slots, num_tiles = made.tokens.shape[1], where.shape[1]
        if num_slots % num_tiles:
            raise DataError(
                f"tile_positions got {num_slots} slots for {num_tiles} tiles: {type(self.adapter).__name__} doesn't "
                "make as many of each; put it into frame_wise, or take one that works tile by tile"
            )
        placed = made.tokens + where.repeat_interleave(num_slots // num_tiles, dim=1)
        return Embeds(tokens=placed, mask=made.mask, num_frames=made.num_frames)

    def _where(self, features: Features, num_items: int) -> Float[Tensor, "M F D"]:
        centers = features.centers
        if centers is None:
            centers = torch.full((num_items, 1, 2), WHOLE, device=features.tokens.device)
        return self.positions(centers.flatten(0, 1)).unflatten(0, centers.shape[:2])
