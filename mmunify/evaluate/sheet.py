"""Contact sheets: pictures with what was asked, answered and read in them, on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from mmunify.types import Box

PICTURE = 256
"""Side of a picture on the sheet; small ones are enlarged without smoothing."""

MARGIN = 18
LINE = 19
THICK = 2
"""Of outlines, in pixels of the enlarged picture."""

TEXT_SIZE = 14
PAPER, INK, FAINT, TINT = (252, 252, 250), (25, 25, 30), (120, 120, 125), (235, 30, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        title: above it.
        picture: uint8 [H W 3]; None leaves its place empty.
        lines: below it, wrapped; a line that begins with "> " is what the user said.
    """

    title: str
    picture: np.ndarray | None = None
    lines: tuple[str, ...] = ()


def draw_sheet(panels: Sequence[Panel], heading: str, path: str | Path, columns: int = 4) -> Path:
    """Draw panels in reading order and write a PNG.

    Args:
        panels: one per picture.
        heading: first line of the sheet.
        path: of the file; its folder is made if need be.
        columns: panels side by side.
    """
    from PIL import Image, ImageDraw

    columns = min(columns, max(len(panels), 1))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [_height(row) for row in rows]
    size = (columns * (PICTURE + MARGIN) + MARGIN, sum(heights) + 3 * MARGIN + LINE)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), heading, fill=INK, font=_font(TEXT_SIZE + 4))
    top = 2 * MARGIN + LINE
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            _draw_panel(sheet, pen, panel, MARGIN + column * (PICTURE + MARGIN), top)
        top += height
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    return target


def _height(row: Sequence[Panel]) -> int:
    """Of a row of panels: title, picture, its longest text."""
    return LINE + PICTURE + max(len(_wrapped(panel.lines)) for panel in row) * LINE + 2 * MARGIN


def _draw_panel(sheet: Any, pen: Any, panel: Panel, left: int, top: int) -> None:
    from PIL import Image

    pen.text((left, top), panel.title, fill=INK, font=_font(TEXT_SIZE + 1))
    top += LINE
    if panel.picture is not None:
        small = Image.fromarray(panel.picture)
        scale = PICTURE / max(small.size)
        size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        sheet.paste(small.resize(size, how), (left, top))
    else:
        pen.rectangle((left, top, left + PICTURE, top + PICTURE), outline=FAINT)
        pen.text((left + 70, top + PICTURE // 2 - 8), "no picture", fill=FAINT, font=_font(TEXT_SIZE))
    top += PICTURE + 6
    for text, is_user in _wrapped(panel.lines):
        pen.text((left, top), text, fill=FAINT if is_user else INK, font=_font(TEXT_SIZE))
        top += LINE


def _wrapped(lines: Sequence[str]) -> list[tuple[str, bool]]:
    """Lines no wider than a picture, and whether the user said them."""
    return [(part, line.startswith("> ")) for line in lines for part in _fitting(line)]


def _fitting(line: str) -> list[str]:
    """Break a line where it gets too wide: at spaces, and inside words that are too long by themselves."""
    font, done, now = _font(TEXT_SIZE), [], ""
    for word in line.split(" "):
        longer = f"{now} {word}" if now else word
        if font.getlength(longer) <= PICTURE:
            now = longer
            continue
        done += [now] if now else []
        now = word
        while font.getlength(now) > PICTURE:
            cut = next(i for i in range(len(now), 0, -1) if font.getlength(now[:i]) <= PICTURE)
            done, now = [*done, now[:cut]], now[cut:]
    return [*done, now]


def _font(size: int) -> Any:
    """Pillow's own font, which is there on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def overlay_mask(
    picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], color: tuple[int, int, int] = TINT
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture that is tinted where the mask is and dimmed elsewhere."""
    tinted = np.where(mask[..., None], 0.35 * picture + 0.65 * np.array(color), 0.6 * picture)
    return tinted.astype(np.uint8)


def outline_boxes(
    picture: UInt8[np.ndarray, "H W 3"], boxes: Sequence[Box], color: tuple[int, int, int] = TINT, scale: int = 4
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture, enlarged so that thin lines hide nothing, with the outlines of boxes (0..1)."""
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = large.shape[:2]
    for x0, y0, x1, y1 in boxes:
        left, top = (min(int(edge * side), side - 1) for edge, side in ((x0, width), (y0, height)))
        right, bottom = (min(max(int(edge * side) - 1, 0), side - 1) for edge, side in ((x1, width), (y1, height)))
        framed = np.zeros((height, width), dtype=bool)
        framed[top : bottom + 1, left : right + 1] = True
        framed[top + THICK : bottom + 1 - THICK, left + THICK : right + 1 - THICK] = False
        large[framed] = color
    return large
