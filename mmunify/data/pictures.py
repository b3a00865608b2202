"""Reading pictures: any source -> RGB -> the numbers that an encoder wants. Bad files end in one clear error."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import DataError
from mmunify.types import Preprocess, Source

MAX_PIXELS = 100_000_000
"""Larger pictures are refused from their header, before any memory is spent on them."""


def read_picture(source: Source, max_pixels: int = MAX_PIXELS) -> Any:
    """An RGB PIL image from a path, an array (uint8 [H W 3], [H W 4] or [H W]) or a PIL image.

    Transparent pictures are laid over white; EXIF rotation is applied.

    Raises:
        DataError: missing, empty, unreadable or too large; the message names the file and its size.
    """
    from PIL import Image, ImageOps

    if isinstance(source, np.ndarray):
        return _to_rgb(Image.fromarray(_as_bytes(source)))
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    path = Path(source)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"picture {path} is empty (0 bytes)")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our limit below, with our message
        try:
            picture = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
        width, height = picture.size
        if width * height > max_pixels:
            raise DataError(
                f"picture {path} has {width} x {height} pixels, more than the limit of {max_pixels}; scale it down"
            )
        return _to_rgb(ImageOps.exif_transpose(picture))
    except FileNotFoundError as error:
        raise DataError(f"picture {path} does not exist") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"picture {path} cannot be read: {error}") from error


def prepare(picture: Any, preprocess: Preprocess) -> Float[Tensor, "C H W"]:
    """Fit an RGB picture into the encoder's size and normalise it.

    "pad" puts it in the middle (floor division) of a square of the mean colour, as LLaVA and GroundingGPT do.
    """
    from PIL import Image

    height, width = preprocess.size
    if preprocess.fit == "pad":
        picture = pad_to_square(picture, tuple(int(255 * m) for m in preprocess.mean))
    elif preprocess.fit == "crop":
        picture = _crop_centre(picture, width / height)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (preprocess.mean, preprocess.std))
    return (pixels - mean) / std


def pad_to_square(picture: Any, colour: tuple[int, ...]) -> Any:
    """Paste a picture into the middle of a square of its longer side."""
    from PIL import Image

    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def _crop_centre(picture: Any, ratio: float) -> Any:
    width, height = picture.size
    crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return picture.crop((left, top, left + crop_width, top + crop_height))


def _to_rgb(picture: Any) -> Any:
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """uint8 pixels; floats are taken as 0..1."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        return (array.clip(0, 1) * 255).round().astype(np.uint8)
    raise DataError(f"a picture array must be uint8, bool or float in 0..1; got {array.dtype} of shape {array.shape}")
