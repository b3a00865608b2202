"""What a call works on: the picture it means, as an array, and the pixels of its regions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmunify.errors import DataError, UserError
from mmunify.parts import Workspace
from mmunify.tokens import bounding_box
from mmunify.types import Media, Region, Source, TaskCall

MAX_PIXELS = 100_000_000
"""Larger pictures are refused from their header."""


def input_picture(call: TaskCall, workspace: Workspace) -> np.ndarray:
    """The picture that a call works on: medium number `call.media`, or the latest image; uint8 [H W 3].

    Raises:
        UserError: there is none.
        DataError: it cannot be read.
    """
    media = workspace.media if call.media is None else workspace.media[max(call.media, 0) :][:1]
    images = [medium for medium in media if medium.kind == "image"]
    if not images:
        where = "in the conversation" if call.media is None else f"at index {call.media}"
        raise UserError(f"the {call.task} call needs a picture and there is none {where}")
    return read_pixels(images[-1])


def read_pixels(media: Media) -> np.ndarray:
    """uint8 [H W 3] of an image medium: a path, an array (uint8, bool, or float in 0..1) or a PIL image."""
    from PIL import Image

    source = media.source
    if isinstance(source, np.ndarray):
        return _as_rgb(source)
    if not isinstance(source, Image.Image):
        source = _open(source)
    return np.array(source.convert("RGB"))


def pixel_box(region: Region, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) in pixels, at least one pixel wide and high, inside a picture [H W ...].

    Raises:
        UserError: two or fewer points, which have no area.
    """
    if region.points is not None and len(region.points) < 3:
        raise UserError(f"region {region.label!r} has {len(region.points)} points; give a box, a mask or an outline")
    height, width = shape[:2]
    x0, y0, x1, y1 = bounding_box(region)
    left, top = min(max(round(x0 * width), 0), width - 1), min(max(round(y0 * height), 0), height - 1)
    return left, top, min(max(round(x1 * width), left + 1), width), min(max(round(y1 * height), top + 1), height)


def _open(source: Source) -> Any:
    from PIL import Image, ImageOps

    path = Path(str(source))
    try:
        picture = Image.open(path)
        if picture.width * picture.height > MAX_PIXELS:
            raise DataError(f"picture {path} has {picture.width} x {picture.height} pixels; the limit is {MAX_PIXELS}")
        return ImageOps.exif_transpose(picture)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"picture {path} cannot be read: {error}") from error


def _as_rgb(array: np.ndarray) -> np.ndarray:
    """uint8 [H W 3] from grey, RGB or RGBA arrays."""
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    if array.ndim == 2:
        array = np.stack([array] * 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] not in (3, 4) or array.dtype != np.uint8:
        raise DataError(f"a picture must be uint8 [H W 3]; got {array.dtype} of shape {array.shape}")
    return array[..., :3]
