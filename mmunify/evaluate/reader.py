"""An independent reader of digit-world pictures: which digits, in which colours, does a picture show?

It shares no weight and no code path with the model: a support vector machine from scikit-learn, fitted to the *train*
split's handwriting, reads the shapes; the colours come from the direction of each pixel's chroma. So a drawing, an
edit or a generated picture is judged by what can be read in it.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mmunify.data.digit_world.handwriting import load_glyphs
from mmunify.data.digit_world.scene import COLORS, INK_THRESHOLD, OPACITY, draw_ink
from mmunify.types import Box

Picture = UInt8[np.ndarray, "H W 3"]

MIN_SPREAD = 60
"""Difference of a pixel's largest and smallest channel above which it is coloured; backgrounds are muted."""

MIN_AREA = 16
"""Coloured pixels below which a blob is no digit: a thin 1 of the smallest size has more."""

MIN_COVER = 0.1
"""Share of a box that must be coloured for a digit to stand there."""

SIDE = 12
TRAIN_SIZES = (16, 22)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A digit that was read in a picture; `box` in 0..1."""

    digit: int
    color: str
    box: Box

    @property
    def name(self) -> str:
        """As the digit world names it: "red 7"."""
        return f"{self.color} {self.digit}"


def _chroma(picture: np.ndarray) -> np.ndarray:
    pixels = picture.astype(np.float32)
    return pixels - pixels.mean(axis=-1, keepdims=True)


def _palette() -> np.ndarray:
    """[colours 3] chroma of the palette; its direction doesn't change when a colour is mixed with grey."""
    return _chroma(np.array(list(COLORS.values())))


def _spread(picture: np.ndarray) -> np.ndarray:
    return picture.max(axis=-1).astype(int) - picture.min(axis=-1)


def _nearest_color(chroma: np.ndarray) -> np.ndarray:
    """Index of the palette colour whose chroma points the same way; [... 3] -> [...]."""
    palette = _palette()
    return (chroma @ (palette / np.linalg.norm(palette, axis=1, keepdims=True)).T).argmax(axis=-1)


def _shape(ink: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "k"]:
    """Ink cropped to its tight box, centred in a square, resized to SIDE x SIDE and flattened."""
    from PIL import Image

    solid = ink > INK_THRESHOLD
    if not solid.any():
        return np.zeros(SIDE * SIDE)
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = tight.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(tight, ((top, side - height - top), (left, side - width - left)))
    small = Image.fromarray(square.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float64).ravel()


@cache
def _classifier() -> Any:
    """A support vector machine on the train split's handwriting, drawn at several sizes; fitted once per process."""
    from sklearn.svm import SVC

    glyphs = load_glyphs("train")
    shapes = [_shape(draw_ink(int(sample), size)) for size in TRAIN_SIZES for sample in glyphs.sample]
    return SVC(C=10.0, gamma="scale").fit(shapes, np.tile(glyphs.digit, len(TRAIN_SIZES)))


def _read_shape(picture: np.ndarray, color: int) -> int:
    """The digit that a crop shows in a colour, from how much of the colour's chroma every pixel has."""
    wanted = _palette()[color]
    ink = np.clip(_chroma(picture) @ wanted / (wanted @ wanted) / OPACITY, 0, 1)
    return int(_classifier().predict([_shape(ink)])[0])


def _pixels(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a box; at least one pixel, never outside the picture."""
    height, width = shape[:2]
    left, top = min(max(round(box[0] * width), 0), width - 1), min(max(round(box[1] * height), 0), height - 1)
    right, bottom = max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)
    return slice(top, bottom), slice(left, right)


def box_mask(box: Box, shape: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """The pixels of a box (0..1) in a picture of this shape."""
    mask = np.zeros(shape[:2], dtype=bool)
    mask[_pixels(box, shape)] = True
    return mask


def _color_mask(picture: np.ndarray, color: int) -> Bool[np.ndarray, "H W"]:
    """Pixels of one palette colour."""
    return (_spread(picture) > MIN_SPREAD) & (_nearest_color(_chroma(picture)) == color)


def _blobs(mask: Bool[np.ndarray, "H W"]) -> np.ndarray:
    """Number of the blob of every pixel, 0 outside."""
    from skimage.measure import label

    return np.asarray(label(mask, connectivity=2))


def _read_blob(picture: np.ndarray, mask: np.ndarray, color: int) -> Found:
    """Read the digit that a mask covers; its soft edge, one pixel around, belongs to its ink."""
    from skimage.morphology import dilation

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    digit = _read_shape(np.where(dilation(mask, np.ones((3, 3)))[..., None], picture, 0), color)
    height, width = mask.shape
    box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return Found(digit=digit, color=list(COLORS)[color], box=tuple(map(float, box)))  # type: ignore[arg-type]


def read_box(picture: Picture, box: Box) -> Found | None:
    """The digit at a box (0..1), also where it reaches beyond it; None where too little of the box is coloured."""
    inside = box_mask(box, picture.shape)
    colored = inside & (_spread(picture) > MIN_SPREAD)
    if colored.sum() < MIN_COVER * inside.sum():
        return None
    color = int(np.bincount(_nearest_color(_chroma(picture)[colored]), minlength=len(COLORS)).argmax())
    blobs = _blobs(_color_mask(picture, color))
    return _read_blob(picture, np.isin(blobs, np.unique(blobs[inside & (blobs > 0)])) & (blobs > 0), color)


def find_digits(picture: Picture) -> list[Found]:
    """Every digit of a picture, without being told where: connected blobs of one colour, each read on its own."""
    found = []
    for color in range(len(COLORS)):
        blobs = _blobs(_color_mask(picture, color))
        sizes = np.bincount(blobs.ravel())
        found += [_read_blob(picture, blobs == i, color) for i in range(1, len(sizes)) if sizes[i] >= MIN_AREA]
    return sorted(found, key=lambda item: item.box)
