"""Targets that are regions: between the frame of the original medium and that of the encoder that looks at it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmunify.types import Box, Preprocess, Region

Extent = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTarget(Preprocess):
    """A target is read as a region of a medium, in the frame of that medium's encoder.

    Attributes:
        kind: "mask" (a raster of `size`, each cell the share that is covered) or "box" (corners in 0..1).
        size: (height, width) of a mask's raster.
        frame: how the medium itself is fitted into its encoder's picture.
    """

    kind: str = "mask"
    frame: Preprocess = field(default_factory=Preprocess)


def window(extent: Extent, frame: Preprocess) -> tuple[float, float, float, float]:
    """What the encoder sees, in pixels of the original: left, top, width, height; padding lies outside of it."""
    width, height = extent
    if frame.fit == "pad":
        side = max(extent)
        return -((side - width) // 2), -((side - height) // 2), side, side
    if frame.fit == "crop":
        ratio = frame.size[1] / frame.size[0]
        wide, high = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        return (width - wide) // 2, (height - high) // 2, wide, high
    return 0, 0, width, height


def frame_box(box: Sequence[float], extent: Extent, frame: Preprocess) -> Box:
    """A box in 0..1 of the original -> 0..1 of the encoder's picture, clipped to it."""
    left, top, wide, high = window(extent, frame)
    x0, x1 = (min(max((x * extent[0] - left) / wide, 0.0), 1.0) for x in (box[0], box[2]))
    y0, y1 = (min(max((y * extent[1] - top) / high, 0.0), 1.0) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def restore_box(box: Sequence[float], extent: Extent, frame: Preprocess) -> Box:
    """Inverse of `frame_box`; what lies in the padding is clipped away."""
    left, top, wide, high = window(extent, frame)
    x0, x1 = (min(max((x * wide + left) / extent[0], 0.0), 1.0) for x in (box[0], box[2]))
    y0, y1 = (min(max((y * high + top) / extent[1], 0.0), 1.0) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def restore_regions(boxes: Float[Tensor, "K 4"], extent: Extent, frame: Preprocess) -> list[Region]:
    """Predicted corners in 0..1 of the encoder's picture -> regions of the original; none for boxes without area."""
    restored = [restore_box(box, extent, frame) for box in boxes.tolist()]
    return [Region(box=box) for box in restored if box[0] < box[2] and box[1] < box[3]]


def frame_mask(mask: Bool[Tensor, "F H W"], frame: Preprocess, size: tuple[int, int]) -> Float[Tensor, "F h w"]:
    """A mask of the original's size -> shares of a raster's cells that it covers; padding is not covered."""
    height, width = mask.shape[1:]
    left, top, wide, high = (int(x) for x in window((width, height), frame))
    canvas = mask.new_zeros(len(mask), high, wide, dtype=torch.float32)
    source = mask[:, max(top, 0) : max(top, 0) + high, max(left, 0) : max(left, 0) + wide]
    down, across = max(-top, 0), max(-left, 0)
    canvas[:, down : down + source.shape[1], across : across + source.shape[2]] = source.float()
    return F.interpolate(canvas[:, None], size, mode="area")[:, 0]


def restore_mask(logits: Float[Tensor, "h w"], extent: Extent, frame: Preprocess) -> Bool[Tensor, "H W"]:
    """A predicted mask -> where it is likelier than not, in the original's size; outside of a crop it is False."""
    left, top, wide, high = (int(x) for x in window(extent, frame))
    seen = F.interpolate(logits.float()[None, None], (high, wide), mode="bilinear", align_corners=False)[0, 0] > 0
    mask = torch.zeros(extent[1], extent[0], dtype=torch.bool, device=logits.device)
    inside = seen[max(-top, 0) :, max(-left, 0) :][: extent[1], : extent[0]]
    mask[max(top, 0) : max(top, 0) + inside.shape[0], max(left, 0) : max(left, 0) + inside.shape[1]] = inside
    return mask
