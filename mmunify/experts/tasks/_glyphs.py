"""Drawing digits in real handwriting (scikit-learn's bundled set), and any other words in Pillow's own font.

Only samples of the training split are drawn, so that an expert never shows handwriting that a test is about.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

OPACITY = 0.92
SHARPNESS = 1.8
"""Steepness of the edge between paper and ink, about the half-covered pixel."""


@cache
def _handwriting() -> dict[int, np.ndarray]:
    """Digit -> [n 8 8] ink in 0..1, of the training split."""
    from sklearn.datasets import load_digits

    bundled: Any = load_digits()
    split = files("mmunify").joinpath("assets", "tiny", "handwriting_split.json").read_text()
    train = np.asarray(json.loads(split)["train"])
    ink, digits = np.asarray(bundled["images"])[train] / 16.0, np.asarray(bundled["target"])[train]
    return {digit: ink[digits == digit].astype(np.float32) for digit in range(10)}


def draw_number(number: str, height: int, rng: np.random.Generator) -> np.ndarray:
    """Ink [height w] in 0..1 of one or more digits side by side, cropped to the ink.

    Args:
        number: digits only.
        height: of the ink, in pixels.
        rng: chooses the handwriting.
    """
    glyphs = [_draw_digit(int(digit), height, rng) for digit in number]
    gap = np.zeros((height, max(1, height // 8)), dtype=np.float32)
    return np.concatenate([part for glyph in glyphs for part in (glyph, gap)][:-1], axis=1)


def _draw_digit(digit: int, height: int, rng: np.random.Generator) -> np.ndarray:
    samples = _handwriting()[digit]
    sample = samples[rng.integers(len(samples))]
    size = height  # of the whole 8 x 8 square, grown until its ink is as high as asked for
    while _ink_height(glyph := _enlarged(sample, size)) < height:
        size += 1
    solid = glyph > 0.5
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    top = min(max(rows[0], 0), len(glyph) - height)
    return glyph[top : top + height, max(columns[0] - 1, 0) : columns[-1] + 2]


def _enlarged(sample: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    smooth = np.asarray(Image.fromarray(sample).resize((size, size), Image.Resampling.BICUBIC))
    return np.clip((smooth - 0.5) * SHARPNESS + 0.5, 0, 1)


def _ink_height(glyph: np.ndarray) -> int:
    rows = np.flatnonzero((glyph > 0.5).any(1))
    return int(rows[-1] - rows[0] + 1) if len(rows) else 0


def draw_words(text: str, height: int, width: int) -> np.ndarray:
    """Ink [h w] in 0..1 of any words in one line, as large as `height` and `width` allow (6 pixels at least)."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates have no glyph
    ink, size = _print(text, height), height
    while size > 6 and (ink.shape[0] > height or ink.shape[1] > width):
        size = max(6, min(size - 1, int(size * width / ink.shape[1])))
        ink = _print(text, size)
    return ink


def _print(text: str, size: int) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=max(6, size))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    canvas = Image.new("L", (max(1, right - left + 2), max(1, bottom - top + 2)))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(canvas, dtype=np.float32) / 255


def paste_ink(
    picture: np.ndarray, ink: np.ndarray, center: tuple[float, float], color: np.ndarray | tuple[int, int, int]
) -> None:
    """Blend ink of a colour into a picture (uint8 [H W 3]), in place; what lies outside is cut off."""
    height, width = ink.shape
    x, y = round(center[0] - width / 2), round(center[1] - height / 2)
    rows = slice(max(y, 0), max(min(y + height, picture.shape[0]), 0))
    columns = slice(max(x, 0), max(min(x + width, picture.shape[1]), 0))
    window = picture[rows, columns].astype(np.float32)
    part = ink[rows.start - y :, columns.start - x :][: window.shape[0], : window.shape[1], None] * OPACITY
    blended = window + part * (np.asarray(color, dtype=np.float32) - window)
    picture[rows, columns] = np.clip(blended + 0.5, 0, 255).astype(np.uint8)
