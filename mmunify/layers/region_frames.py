"""Regions as numbers: what the data side writes for a region encoder, and how it is read."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from mmunify.types import Preprocess

NUM_COORDINATES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionPreprocess(Preprocess):
    """A region becomes one row of numbers: the item that it is part of, its box, its mask as a raster.

    Box and mask are in the frame of the medium's encoder (after its padding or crop), in 0..1.

    Attributes:
        kind: of the region's own node.
        medium: encoder node, or kind, of the media that regions are parts of.
        size: (height, width) of the mask's raster.
    """

    kind: str = "region"
    medium: str = "image"


def split_rows(
    rows: Float[Tensor, "M V"], size: tuple[int, int]
) -> tuple[Int[Tensor, "M"], Float[Tensor, "M 4"], Float[Tensor, "M h w"]]:
    """Rows of regions -> items, boxes (x0, y0, x1, y1) and masks."""
    boxes, masks = rows[:, 1 : 1 + NUM_COORDINATES], rows[:, 1 + NUM_COORDINATES :]
    return rows[:, 0].long(), boxes, masks.unflatten(1, size)
