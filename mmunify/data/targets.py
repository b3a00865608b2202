"""Targets of outputs that are no pictures: numbers, masks and boxes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmunify.data.numbers import read_numbers
from mmunify.data.pictures import read_picture
from mmunify.data.regions import region_row
from mmunify.errors import DataError
from mmunify.layers.region_frames import RegionPreprocess, split_rows
from mmunify.layers.target_frames import RegionTarget, frame_box, frame_mask
from mmunify.types import Region

Extent = tuple[int, int]


def read_region_target(source: Any, extent: Extent | None, preprocess: RegionTarget) -> Tensor:
    """A mask or a box in the frame of the medium's encoder: [h w] ([F h w] of a clip), or [4].

    Args:
        source: a Region, a box (x0, y0, x1, y1) in 0..1, a mask [H W] or [F H W], or the path of a picture of one.
        extent: (width, height) of the medium; None = no medium came before.
        preprocess: of the target.

    Raises:
        DataError: no medium, a mask of another size, a box without area.
    """
    if extent is None:
        raise DataError(f"a {preprocess.kind} output needs a medium of kind {preprocess.frame.kind!r} before it")
    region = source if isinstance(source, Region) else None
    if preprocess.kind == "box":
        return _box(source if region is None else region.box, extent, preprocess)
    if region is not None and region.mask is None:
        shape = RegionPreprocess(medium=preprocess.frame.kind, size=preprocess.size)
        return split_rows(region_row(region, extent, preprocess.frame, shape)[None], preprocess.size)[2][0]
    return _mask(source if region is None else region.mask, extent, preprocess)


def _box(box: Any, extent: Extent, preprocess: RegionTarget) -> Tensor:
    numbers = read_numbers(() if box is None else box)
    if numbers.shape != (4,):
        raise DataError(f"the target of a box output is (x0, y0, x1, y1) in 0..1; got shape {tuple(numbers.shape)}")
    x0, y0, x1, y1 = frame_box(numbers.tolist(), extent, preprocess.frame)
    if not (x0 < x1 and y0 < y1):
        raise DataError(f"box {tuple(numbers.tolist())} has no area in its picture of {extent[0]} x {extent[1]}")
    return torch.tensor((x0, y0, x1, y1))


def _mask(source: Any, extent: Extent, preprocess: RegionTarget) -> Tensor:
    """Anything above zero counts (128 and more in a picture), so that masks that were summed up stay masks."""
    if isinstance(source, str | Path):
        mask = torch.from_numpy(np.array(read_picture(source).convert("L")) >= 128)
    else:
        mask = read_numbers(source) > 0
    frames = mask if mask.ndim == 3 else mask[None]
    if frames.ndim != 3 or frames.shape[1:] != extent[::-1]:
        raise DataError(
            f"a mask of shape {tuple(mask.shape)} for a medium of {extent[0]} x {extent[1]} pixels; expected "
            f"[{extent[1]} {extent[0]}], or one such mask per frame"
        )
    framed = frame_mask(frames, preprocess.frame, preprocess.size)
    return framed if mask.ndim == 3 else framed[0]
