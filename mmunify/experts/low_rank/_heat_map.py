"""Mean gate weights as a picture: experts x tasks, the mean over layers and every layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmunify.errors import UserError
from mmunify.experts.low_rank._telemetry import GateFigures

CELL, GAP, TITLE, TEXT = 30, 24, 40, 11
"""Pixels: side of a cell, space between panels, space above a panel, size of letters."""

PALE, DARK = (247, 251, 255), (8, 48, 107)


def draw_heat_map(figures: GateFigures, path: str | Path, columns: int = 4) -> Path:
    """Draw one panel per layer, rows tasks and columns experts; white is 0, the darkest blue the largest weight.

    Tasks without tokens are crossed out. The mean over layers comes first where all have as many experts.

    Args:
        figures: from `GateTelemetry.figures`.
        path: of the PNG; its folder is made if missing.
        columns: panels side by side.

    Raises:
        UserError: there is no gated layer.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not figures.layers:
        raise UserError("there is no gate to draw: no gated layer has run, or the model has none")
    average = figures.average()
    panels = dict(figures.layers) if average is None or len(figures.layers) == 1 else {"mean over layers": average}
    panels |= figures.layers
    font = ImageFont.load_default(size=TEXT)
    margin = 12 + int(max(font.getlength(task) for task in figures.tasks))
    width = margin + GAP + max(CELL * len(p.weights[0]) for p in panels.values())
    width = max([width, *(margin + GAP + int(font.getlength(name)) for name in panels)])
    height = TITLE + CELL * len(figures.tasks) + GAP
    across = min(columns, len(panels))
    picture = Image.new("RGB", (across * width + GAP, -(-len(panels) // across) * height + GAP), "white")
    largest = max(weight for panel in panels.values() for row in panel.weights for weight in row) or 1.0
    draw = ImageDraw.Draw(picture)
    for place, (name, panel) in enumerate(panels.items()):
        corner = (GAP // 2 + margin + place % across * width, GAP // 2 + TITLE + place // across * height)
        _draw_panel(draw, font, corner, name, figures.tasks, panel.weights, panel.tokens, largest)
    draw.text((GAP // 2, picture.height - GAP + 4), f"mean gate weight, 0 to {largest:.2f}", "black", font)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)
    return target


def _draw_panel(
    draw: Any,
    font: Any,
    corner: tuple[int, int],
    name: str,
    tasks: Sequence[str],
    weights: Sequence[Sequence[float]],
    tokens: Sequence[float],
    largest: float,
) -> None:
    left, top = corner
    draw.text((left, top - TITLE + 6), name, "black", font)
    for expert in range(len(weights[0])):
        draw.text((left + CELL * expert + CELL // 2, top - 4), str(expert), "black", font, anchor="ms")
    for row, (task, values, count) in enumerate(zip(tasks, weights, tokens, strict=True)):
        y = top + CELL * row
        draw.text((left - 6, y + CELL // 2), task, "black", font, anchor="rm")
        for expert, value in enumerate(values):
            box = (left + CELL * expert, y, left + CELL * (expert + 1) - 1, y + CELL - 1)
            _draw_cell(draw, font, box, value / largest if count else None, f"{value:.2f}")


def _draw_cell(draw: Any, font: Any, box: tuple[int, int, int, int], share: float | None, text: str) -> None:
    if share is None:
        draw.rectangle(box, fill="white", outline="grey")
        draw.line(box, fill="grey")
        return
    share = min(1.0, max(0.0, share))
    fill = tuple(round(pale + share * (dark - pale)) for pale, dark in zip(PALE, DARK, strict=True))
    draw.rectangle(box, fill=fill)
    middle = ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
    draw.text(middle, text, "white" if share > 0.5 else "black", font.font_variant(size=TEXT - 2), anchor="mm")
