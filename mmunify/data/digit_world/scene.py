"""Scenes of the digit world: coloured handwritten digits on a muted, noisy background, with exact ground truth.

A `Scene` is plain data and drawing it is a pure function, so every edit of a picture (remove, recolour, replace) is an
edit of the scene, drawn again.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from mmunify.data.digit_world import handwriting
from mmunify.data.digit_world.handwriting import Split
from mmunify.errors import DataError
from mmunify.types import Box

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 225, 60),
    "purple": (165, 50, 190),
    "orange": (250, 135, 20),
}

MAX_DIGITS = 4
GLYPH_SIZES = (15, 24)
"""Smallest and largest side, in pixels, of the square into which a glyph is drawn."""

OPACITY = 0.92
INK_THRESHOLD = 0.5
"""Ink above which a pixel counts as part of a digit: masks and tight boxes share it."""

MARGIN = 2
MIN_CENTER_DISTANCE = 9
"""Between the centres of two digits, along x or y: keeps them apart on a grid of 8-pixel cells."""

Warp = tuple[float, float, float]
"""Rotation (radians), shear (columns per row) and thickening (shift of the ink threshold) of a glyph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digit:
    """One digit of a scene.

    Attributes:
        digit: 0..9.
        color: name, a key of `COLORS`.
        box: tight ink box in pixels (x0, y0, x1, y1); x1 and y1 are exclusive.
        sample: index of the handwriting.
        place: (x, y, size) of the square into which the glyph is drawn.
        warp: distortion of the handwriting, for augmentation.
    """

    digit: int
    color: str
    box: tuple[int, int, int, int]
    sample: int
    place: tuple[int, int, int]
    warp: Warp = (0.0, 0.0, 0.0)

    def norm_box(self, size: int) -> Box:
        """The box in 0..1 of a picture of `size` x `size` pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 / size, y0 / size, x1 / size, y1 / size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Digits on a background. `background` is the seed of the background's colour and noise."""

    digits: tuple[Digit, ...]
    size: int = 64
    background: int = 0


# ------------------------------------------------------------------------------------------- drawing


@cache
def _stretch(out: int, cells: int) -> np.ndarray:
    """Matrix [out cells] that interpolates `cells` values to `out` pixels (Catmull-Rom); outside lies zero."""
    at = (np.arange(out) + 0.5) * cells / out - 0.5
    distance = np.abs(at[:, None] - np.arange(cells))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0)).astype(np.float32)


def _warped(ink: np.ndarray, rotation: float, shear: float) -> np.ndarray:
    """Rotate and shear a square about its centre, bilinearly; outside lies zero."""
    size = len(ink)
    grid = np.arange(size, dtype=np.float32) - (size - 1) / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    cos, sin = np.cos(rotation), np.sin(rotation)
    u = cos * x - sin * y + shear * y + (size - 1) / 2
    v = sin * x + cos * y + (size - 1) / 2
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    right, down = u - column, v - row
    padded = np.pad(ink, 1)
    left, top = np.clip(column + 1, 0, size), np.clip(row + 1, 0, size)
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    inside = (np.abs(u - (size - 1) / 2) <= size / 2) & (np.abs(v - (size - 1) / 2) <= size / 2)
    return np.where(inside, upper * (1 - down) + lower * down, 0)


@lru_cache(maxsize=1024)  # a clip draws the same ink in every frame
def draw_ink(sample: int, size: int, warp: Warp = (0.0, 0.0, 0.0)) -> np.ndarray:
    """The ink of one handwriting sample, anti-aliased.

    Args:
        sample: index of the handwriting.
        size: side of the square in pixels.
        warp: distortion.

    Returns:
        [size size] float32, 0..1; not to be written to.
    """
    stretch = _stretch(size, 8)
    ink = stretch @ handwriting.ink(sample) @ stretch.T
    rotation, shear, thickening = warp
    if rotation or shear:
        ink = _warped(ink, rotation, shear)
    drawn = np.clip((ink - INK_THRESHOLD + thickening) * 1.8 + INK_THRESHOLD, 0, 1)
    drawn.flags.writeable = False
    return drawn


def _tight_box(ink: np.ndarray, x: int, y: int) -> tuple[int, int, int, int]:
    solid = ink > INK_THRESHOLD
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    return (int(x + columns[0]), int(y + rows[0]), int(x + columns[-1] + 1), int(y + rows[-1] + 1))


def place_digit(sample: int, color: str, place: tuple[int, int, int], warp: Warp = (0.0, 0.0, 0.0)) -> Digit:
    """A digit at a place, with its tight box.

    Args:
        sample: index of the handwriting.
        color: a key of `COLORS`.
        place: (x, y, size) of the square into which it is drawn.
        warp: distortion of the handwriting.

    Raises:
        DataError: the colour is unknown.
    """
    if color not in COLORS:
        raise DataError(f"unknown colour {color!r}: expected one of {sorted(COLORS)}")
    x, y, size = place
    box = _tight_box(draw_ink(sample, size, warp), x, y)
    return Digit(digit=handwriting.written_digit(sample), color=color, box=box, sample=sample, place=place, warp=warp)


def fit_digit(sample: int, color: str, box: tuple[int, int, int, int]) -> Digit:
    """A digit drawn so that its height and centre are those of `box` (pixels): for layouts and replacements."""
    x0, y0, x1, y1 = box
    ink_height = _tight_box(draw_ink(sample, 24), 0, 0)
    size = max(6, round((y1 - y0) * 24 / (ink_height[3] - ink_height[1])))
    left, top, right, bottom = _tight_box(draw_ink(sample, size), 0, 0)
    x = round((x0 + x1) / 2 - (left + right) / 2)
    y = round((y0 + y1) / 2 - (top + bottom) / 2)
    return place_digit(sample, color, (x, y, size))


def _window(place: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the picture that a square covers, and the same rows and columns inside the square."""
    x, y, size = place
    top, bottom = max(y, 0), min(y + size, shape[0])
    left, right = max(x, 0), min(x + size, shape[1])
    bottom, right = max(bottom, top), max(right, left)
    return slice(top, bottom), slice(left, right), slice(top - y, bottom - y), slice(left - x, right - x)


def draw_digit(picture: np.ndarray, digit: Digit) -> None:
    """Draw one digit into a float picture [H W 3] (0..255), in place; what lies outside is cut off."""
    rows, columns, ink_rows, ink_columns = _window(digit.place, picture.shape)
    ink = draw_ink(digit.sample, digit.place[2], digit.warp)[ink_rows, ink_columns, None] * OPACITY
    window = picture[rows, columns]
    window += ink * (np.asarray(COLORS[digit.color], dtype=np.float32) - window)


def draw_background(seed: int, size: int = 64) -> np.ndarray:
    """A muted background [size size 3], float32 in 0..255: a greyish tint, soft clouds and grain."""
    rng = np.random.default_rng(seed)
    tint = rng.uniform(70, 190) + rng.uniform(-14, 14, 3)
    clouds = rng.standard_normal((6, 6), dtype=np.float32)
    smooth = _stretch(size + size // 2, 6)[size // 4 : size // 4 + size]
    grain = rng.standard_normal((size, size, 1), dtype=np.float32)
    tinted_grain = rng.standard_normal((size, size, 3), dtype=np.float32)
    picture = tint + 12 * (smooth @ clouds @ smooth.T)[..., None] + 5 * grain + 3 * tinted_grain
    return np.clip(picture, 0, 255).astype(np.float32)


def draw_scene(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8 [H W 3]."""
    picture = draw_background(scene.background, scene.size)
    for digit in scene.digits:
        draw_digit(picture, digit)
    return (picture + 0.5).astype(np.uint8)


def digit_mask(scene: Scene, index: int) -> np.ndarray:
    """Bool [H W]: the pixels of the scene's digit number `index`."""
    digit = scene.digits[index]
    mask = np.zeros((scene.size, scene.size), dtype=bool)
    rows, columns, ink_rows, ink_columns = _window(digit.place, mask.shape)
    ink = draw_ink(digit.sample, digit.place[2], digit.warp)
    mask[rows, columns] = ink[ink_rows, ink_columns] > INK_THRESHOLD
    return mask


# ------------------------------------------------------------------------------------------- composing


def _draw_warp(rng: np.random.Generator, strength: float) -> Warp:
    if not strength:
        return (0.0, 0.0, 0.0)
    rotation, shear, thickening = (rng.uniform(-1, 1, 3) * strength).tolist()
    return (0.2 * rotation, 0.2 * shear, 0.12 * thickening)


def _draw_digit(rng: np.random.Generator, split: Split, size: int, warp: float) -> Digit:
    color = list(COLORS)[rng.integers(len(COLORS))]
    sample = handwriting.pick(rng, int(rng.integers(10)), split)
    side = int(rng.integers(GLYPH_SIZES[0], GLYPH_SIZES[1] + 1))
    x, y = (int(value) for value in rng.integers(0, size - side + 1, 2))
    return place_digit(sample, color, (x, y, side), _draw_warp(rng, warp))


def _apart(new: Digit, other: Digit) -> bool:
    """Whether two digits differ in name and keep their distance."""
    if (new.digit, new.color) == (other.digit, other.color):
        return False
    a, b = new.box, other.box
    gap = max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
    shift = max(abs(a[0] + a[2] - b[0] - b[2]), abs(a[1] + a[3] - b[1] - b[3])) / 2
    return gap >= MARGIN and shift >= MIN_CENTER_DISTANCE


def make_scene(
    rng: np.random.Generator,
    split: Split = "train",
    num_digits: int | None = None,
    size: int = 64,
    warp: float = 0.0,
) -> Scene:
    """Draw a scene: digits of one split, no two of one digit and colour, none overlapping.

    Args:
        rng: all randomness comes from here.
        split: whose handwriting.
        num_digits: how many; None draws 1..4.
        size: side of the picture in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.

    Raises:
        DataError: that many digits do not fit into the picture.
    """
    wanted = int(rng.integers(1, MAX_DIGITS + 1)) if num_digits is None else num_digits
    digits: list[Digit] = []
    for attempt in range(2000):
        if len(digits) == wanted:
            return Scene(digits=tuple(digits), size=size, background=int(rng.integers(2**31)))
        if attempt % 50 == 49:
            digits = []  # the digits placed so far leave no room: start over
        new = _draw_digit(rng, split, size, warp)
        if all(_apart(new, other) for other in digits):
            digits.append(new)
    raise DataError(f"{wanted} digits do not fit into {size} x {size} pixels: ask for fewer, or for a larger picture")
