"""Regions: from the frame of the original medium to that of its encoder, as one row of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.data.pictures import crop_centre, pad_to_square
from mmunify.errors import DataError
from mmunify.layers.region_frames import RegionPreprocess
from mmunify.types import Box, Preprocess, Region

Extent = tuple[int, int]

OVERSAMPLING = 4
"""Points and outlines are drawn so many times larger than the raster, and averaged down."""

CLICK_RADIUS = 0.02
"""Of a clicked point, in sides of the encoder's picture."""


def region_row(region: Region, extent: Extent, medium: Preprocess, preprocess: RegionPreprocess) -> Float[Tensor, "V"]:
    """A region as a row: item (0, filled in when items are packed), box, mask.

    One or two points are clicks, three or more the corners of an outline. What lies outside the picture is cut off.

    Args:
        region: in the frame of the original medium.
        extent: its (width, height).
        medium: how the medium itself was fitted into its encoder's picture.
        preprocess: size of the mask's raster.

    Raises:
        DataError: a region outside the picture or without area, numbers that are none, a mask of another size.
    """
    if region.mask is not None:
        mask = _fitted_mask(region.mask, extent, medium, preprocess.size)
    elif region.points is not None:
        mask = _draw(_framed(region.points, extent, medium), preprocess.size)
    else:
        mask = _box_mask(_framed_box(region.box or (), extent, medium), preprocess.size)
    if not mask.any():
        raise DataError(f"{_title(region)} covers nothing of its picture of {extent[0]} x {extent[1]} pixels")
    box = _bounds(mask) if region.box is None else _framed_box(region.box, extent, medium)
    return torch.cat([torch.zeros(1), torch.tensor(box, dtype=torch.float32), torch.from_numpy(mask).flatten()])


def _framed_box(box: Sequence[float], extent: Extent, medium: Preprocess) -> Box:
    if len(box) != 4 or not np.isfinite(box).all() or box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(f"box {tuple(box)} has no area: it takes x0 < x1 and y0 < y1, in 0..1 of the picture")
    (x0, y0), (x1, y1) = _framed([(box[0], box[1]), (box[2], box[3])], extent, medium).clip(0, 1).tolist()
    if x0 >= x1 or y0 >= y1:
        raise DataError(f"box {tuple(box)} lies outside of its picture (or of the part that its encoder sees)")
    return x0, y0, x1, y1


def _framed(points: Sequence[tuple[float, float]], extent: Extent, medium: Preprocess) -> np.ndarray:
    """Points in 0..1 of the original -> 0..1 of the encoder's picture."""
    places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if not len(places) or not np.isfinite(places).all():
        raise DataError(f"points {points} are no (x, y) pairs of finite numbers")
    size = np.asarray(extent, dtype=np.float64)
    corner, seen = _window(extent, medium)
    return (places * size - corner) / seen


def _window(extent: Extent, medium: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """Corner and size, in pixels of the original, of what the encoder sees."""
    width, height = extent
    if medium.fit == "pad":
        side = max(extent)
        return -np.array([(side - width) // 2, (side - height) // 2], dtype=np.float64), np.array([side, side])
    if medium.fit == "crop":
        left, top, right, bottom = crop_centre(extent, medium.size[1] / medium.size[0])
        return np.array([left, top], dtype=np.float64), np.array([right - left, bottom - top])
    return np.zeros(2), np.array([width, height])


def _box_mask(box: Box, size: tuple[int, int]) -> np.ndarray:
    """Share of every cell that a box covers, exactly."""
    across, down = (_covered(box[i], box[i + 2], length) for i, length in ((0, size[1]), (1, size[0])))
    return np.outer(down, across).astype(np.float32)


def _covered(start: float, end: float, length: int) -> np.ndarray:
    cells = np.arange(length)
    return (np.minimum(end * length, cells + 1) - np.maximum(start * length, cells)).clip(0, 1)


def _draw(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clicks as discs, or an outline filled."""
    from PIL import Image, ImageDraw

    height, width = (side * OVERSAMPLING for side in size)
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    places = points * (width, height)
    if len(points) > 2:
        pen.polygon([tuple(place) for place in places.tolist()], fill=255, outline=255)
    for x, y in places.tolist() if len(points) <= 2 else ():
        across, down = CLICK_RADIUS * width, CLICK_RADIUS * height
        pen.ellipse((x - across, y - down, x + across, y + down), fill=255)
    return _shrunk(picture, size)


def _fitted_mask(mask: np.ndarray, extent: Extent, medium: Preprocess, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    if mask.shape != extent[::-1]:
        raise DataError(f"a mask of {mask.shape[::-1]} for a picture of {extent}: it must have the picture's size")
    picture = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.uint8) * 255)
    if medium.fit == "pad":
        picture = pad_to_square(picture, 0)
    elif medium.fit == "crop":
        picture = picture.crop(crop_centre(extent, medium.size[1] / medium.size[0]))
    return _shrunk(picture, size)


def _shrunk(picture: Any, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return np.asarray(picture.resize(size[::-1], Image.Resampling.BOX), dtype=np.float32) / 255


def _bounds(mask: np.ndarray) -> Box:
    """The box around what a mask covers."""
    (height, width), rows, columns = mask.shape, np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _title(region: Region) -> str:
    given = next(name for name in ("mask", "points", "box") if getattr(region, name) is not None)
    return f"the {given} of region {region.label!r}" if region.label else f"the {given} of a region"
