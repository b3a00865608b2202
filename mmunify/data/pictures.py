"""Reading pictures: any source -> RGB -> the numbers that an encoder wants. Bad files end in one clear error."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.data.streams import readable_file
from mmunify.errors import DataError
from mmunify.layers.tiling import Dynamic, Sheet
from mmunify.types import Preprocess, Source

MAX_PIXELS = 100_000_000
"""Larger pictures are refused from their header, before any memory is spent on them."""

MAX_STRIP = 4096
"""Pictures more than `STRIP` times longer than wide are scaled down to this length before they are padded to a square
(10 000 x 10 pixels would become 100 million)."""

STRIP = 4


def read_picture(source: Source, max_pixels: int = MAX_PIXELS) -> Any:
    """An RGB PIL image from a path, an array (uint8 [H W 3], [H W 4] or [H W]) or a PIL image.

    Transparent pictures are laid over white; EXIF rotation is applied; of animations the first frame is taken; 16 bits
    per channel become 8; palettes, grey and CMYK become RGB.

    Raises:
        DataError: missing, empty, unreadable or too large; the message names the file and its size.
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, f"of mode {source.mode}, {source.size[0]} x {source.size[1]},")
    path = readable_file(source, "picture")
    with _open(path) as picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise DataError(
                f"picture {path} has {width} x {height} pixels, more than the limit of {max_pixels}; scale it down"
            )
        return _decode(picture, str(path))


def prepare(picture: Any, preprocess: Preprocess) -> Float[Tensor, "C H W"]:
    """Fit an RGB picture into the encoder's size and normalise it.

    "pad" puts it in the middle (floor division) of a square of the mean colour, as LLaVA and GroundingGPT do.
    """
    height, width = preprocess.size
    if preprocess.fit == "pad":
        picture = pad_to_square(_shortened(picture), tuple(int(255 * m) for m in preprocess.mean))
    elif preprocess.fit == "crop":
        picture = picture.crop(crop_centre(picture.size, width / height))
    return _normalise(_resize(picture, (width, height)), preprocess)


def prepare_views(picture: Any, preprocess: Preprocess) -> Float[Tensor, "F C H W"]:
    """All views of a picture: the one of its encoder's size, or those that its own size asks for."""
    if not isinstance(preprocess, Dynamic):
        return prepare(picture, preprocess)[None]
    return torch.cat([_cut(picture, sheet, preprocess) for sheet in preprocess.sheets(picture.size)])


def pad_to_square(picture: Any, colour: tuple[int, ...] | int) -> Any:
    """Paste a picture into the middle of a square of its longer side."""
    from PIL import Image

    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new(picture.mode, (side, side), colour)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def crop_centre(extent: tuple[int, int], ratio: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest centred part of this ratio (width / height)."""
    width, height = extent
    crop_width, crop_height = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _cut(picture: Any, sheet: Sheet, preprocess: Preprocess) -> Float[Tensor, "F C H W"]:
    """The tiles of one sheet, row by row."""
    from PIL import Image

    resized = _resize(picture, sheet.size)
    if sheet.size != sheet.canvas:
        canvas = Image.new("RGB", sheet.canvas, sheet.colour)
        canvas.paste(resized, sheet.offset)
        resized = canvas
    columns, rows = sheet.grid
    pixels = _normalise(resized, preprocess)
    tiles = pixels.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
    return tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)


def _resize(picture: Any, size: tuple[int, int]) -> Any:
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def _normalise(picture: Any, preprocess: Preprocess) -> Float[Tensor, "C H W"]:
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (preprocess.mean, preprocess.std))
    return (pixels - mean) / std


def _shortened(picture: Any) -> Any:
    """A long strip scaled down, with no side below one pixel; other pictures as they are."""
    shortest, longest = sorted(picture.size)
    if longest <= max(MAX_STRIP, STRIP * shortest):
        return picture
    width, height = (max(1, round(length * MAX_STRIP / longest)) for length in picture.size)
    return _resize(picture, (width, height))


def _open(path: Path) -> Any:
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own limit, with our message
    try:
        return Image.open(path)
    except Exception as error:  # decoders raise anything on bytes that they don't expect
        raise DataError(f"picture {path} cannot be read: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _decode(picture: Any, title: str) -> Any:
    """Pixels of a picture whose bytes may be damaged."""
    from PIL import ImageOps

    try:
        return _to_rgb(ImageOps.exif_transpose(picture))
    except DataError as error:
        raise DataError(f"picture {title} {error}") from error
    except Exception as error:  # decoders raise anything on bytes that they don't expect
        raise DataError(f"picture {title} cannot be read: {error}") from error


def _to_rgb(picture: Any) -> Any:
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):  # convert("RGB") would cut off at 255
        return Image.fromarray(_as_bytes(_whole(np.asarray(picture)))).convert("RGB")
    return picture.convert("RGB")


def _whole(pixels: np.ndarray) -> np.ndarray:
    """Pixels of more than 8 bits: whole numbers as 16 bits, others as 0..1."""
    if np.issubdtype(pixels.dtype, np.floating):
        return pixels
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 0xFFFF:
        raise DataError(f"has values {pixels.min()}..{pixels.max()}; whole numbers of 8 or 16 bits are read")
    return pixels.astype(np.uint16)


def _from_array(array: np.ndarray) -> Any:
    from PIL import Image

    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(f"a picture array is [H W], [H W 1], [H W 3] or [H W 4], not empty; got shape {array.shape}")
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _to_rgb(Image.fromarray(_as_bytes(array)))


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """uint8 pixels; floats are taken as 0..1, uint16 as 0..65535."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"a picture array must be uint8, uint16, bool or float in 0..1; got {array.dtype} of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"a picture array of floats must be finite; {(~np.isfinite(array)).sum()} numbers are not")
    return (array.clip(0, 1) * 255).round().astype(np.uint8)
