"""SEED-X's box tokens (https://arxiv.org/abs/2404.14396): `<box_start><loc-x><loc-y><loc-w><loc-h><box_end>`.

Centre and size, each in one of `bins` tokens; token k stands for k / bins. The published code reads them only; here a
number is written as the nearest token, and 1.0 as the last one.
"""

import re

from mmunify.types import Box

START, END = "box_start", "box_end"
OPENS, CLOSES = f"<{START}>", f"<{END}>"
LOCATION = re.compile(r"<loc-(\d{1,6})>")
BOXES = re.compile(f"{OPENS}((?:(?!{OPENS}|{CLOSES}).)*)(?:{CLOSES}|\\Z|(?={OPENS}))", re.DOTALL)
"""A box, closed or cut off by the next one or the end."""


def location_strings(bins: int) -> list[str]:
    """The vocabulary of the format; nothing without bins."""
    return [OPENS, CLOSES, *(f"<loc-{k}>" for k in range(bins))] if bins else []


def write_box(box: Box, bins: int) -> str:
    """A box as tokens; one that is narrower than a bin is written a bin wide."""
    x0, y0, x1, y1 = box
    centre = [_nearest(value, bins) for value in ((x0 + x1) / 2, (y0 + y1) / 2)]
    size = [max(1, _nearest(value, bins)) for value in (x1 - x0, y1 - y0)]
    return OPENS + "".join(f"<loc-{k}>" for k in (*centre, *size)) + CLOSES


def read_numbers(inner: str) -> tuple[list[int], str]:
    """The location tokens inside a box, and what else stands there."""
    return [int(number) for number in LOCATION.findall(inner)], LOCATION.sub("", inner).strip()


def corners(numbers: list[int], bins: int) -> Box:
    """Four location numbers -> corners, which may lie outside of 0..1 by rounding or mistake."""
    x, y, w, h = (number / bins for number in numbers)
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _nearest(value: float, bins: int) -> int:
    return min(max(round(value * bins), 0), bins - 1)
