"""Between the two frames of a box: the original image, and the square that the model sees it padded to.

Padding is centred with floor division, as in GroundingGPT and LLaVA.
"""

import numpy as np

from mmunify.errors import TokenError
from mmunify.types import Box, Region

Extent = tuple[int, int]
"""(width, height) of an original image, in pixels."""


def pad_box(box: Box, extent: Extent) -> Box:
    """From the frame of a (width, height) image to that of the square that it is padded to, centred."""
    (width, height), side = extent, max(extent)
    left, top = (side - width) // 2, (side - height) // 2
    x0, x1 = ((x * width + left) / side if width < side else x for x in box[::2])
    y0, y1 = ((y * height + top) / side if height < side else y for y in box[1::2])
    return x0, y0, x1, y1


def unpad_box(box: Box, extent: Extent) -> Box:
    """Inverse of `pad_box`, clipped to 0..1; a box that lies in the padding collapses to an edge."""
    (width, height), side = extent, max(extent)
    left, top = (side - width) // 2, (side - height) // 2
    x0, x1 = (clip((x * side - left) / width if width < side else x) for x in box[::2])
    y0, y1 = (clip((y * side - top) / height if height < side else y) for y in box[1::2])
    return x0, y0, x1, y1


def bounding_box(region: Region) -> Box:
    """The tight box around a region, whatever form it has.

    Raises:
        TokenError: an empty mask.
    """
    if region.box is not None:
        return region.box
    if region.points is not None:
        xs, ys = zip(*region.points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)
    mask = np.asarray(region.mask)
    ys, xs = np.nonzero(mask)
    if len(xs) == 0:
        raise TokenError(f"the mask of region {region.label!r} is empty, so it has no box")
    height, width = mask.shape
    return (
        float(xs.min() / width),
        float(ys.min() / height),
        float((xs.max() + 1) / width),
        float((ys.max() + 1) / height),
    )


def clip(value: float) -> float:
    """Into 0..1."""
    return min(max(value, 0.0), 1.0)
