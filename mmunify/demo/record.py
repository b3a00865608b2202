"""What the demo leaves: a contact sheet, a report, and its metrics as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmunify.data.digit_world.scene import Scene, draw_scene
from mmunify.data.digit_world.words import caption
from mmunify.demo.dialogue import Exchange
from mmunify.evaluate.report import markdown_table, save_json
from mmunify.evaluate.run import Results
from mmunify.evaluate.sheet import Panel, draw_sheet, outline_boxes, overlay_mask
from mmunify.recipe import Recipe
from mmunify.types import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the demo did.

    Attributes:
        recipe: as it was trained.
        before, after: metrics.
        scene: that the dialogue is about.
        exchanges: the dialogue.
        seconds: of every step of the demo, by name.
    """

    recipe: Recipe
    before: Results
    after: Results
    scene: Scene
    exchanges: Sequence[Exchange]
    seconds: Mapping[str, float]


def write_record(record: Record, folder: Path) -> None:
    """Write `sheet.png`, `report.md`, `before.json` and `after.json`."""
    save_json(record.before, folder / "before.json")
    save_json(record.after, folder / "after.json")
    draw_sheet(make_panels(record), f"mmunify demo: {record.recipe.name}, test handwriting", folder / "sheet.png", 3)
    (folder / "report.md").write_text(make_report(record, folder), encoding="utf-8")


def make_panels(record: Record) -> list[Panel]:
    """The scene, then one panel per turn."""
    source = draw_scene(record.scene)
    panels = [Panel(title="test scene", picture=source, lines=(f"truth: {caption(record.scene)}",))]
    for number, exchange in enumerate(record.exchanges, 1):
        reply = exchange.reply
        lines = (f"> {exchange.prompt}", reply.raw or "(nothing)", f"[{exchange.verdict}]", *reply.problems)
        panels.append(Panel(title=f"{number}. {exchange.title}", picture=_show(reply, source), lines=lines))
    return panels


def _show(reply: Reply, source: np.ndarray) -> np.ndarray | None:
    """What a reply looks like: its last artifact, or its boxes on the scene; None for a call that made nothing."""
    if reply.artifacts:
        data = reply.artifacts[-1].data
        return overlay_mask(source, data) if data.ndim == 2 else data
    boxes = [region.box for region in reply.regions if region.box is not None]
    return None if reply.calls else outline_boxes(source, boxes)


def make_report(record: Record, folder: Path) -> str:
    """The report as Markdown; `folder` holds what it lists."""
    stages = ", ".join(f"{stage.name} {stage.steps} steps" for stage in record.recipe.stages)
    times = "\n".join(f"- {name}: {taken:.0f} s" for name, taken in record.seconds.items())
    return f"""# mmunify demo

Recipe `{record.recipe.name}`, trained from the tiny pretrained parts: {stages}.
Everything below is measured on handwriting that neither the parts nor this training saw.

![contact sheet](sheet.png)

## Metrics

Intervals are 95 % (Wilson for rates, bootstrap for means); n is the number of samples. "blanked media" is the same
model with its pictures blanked; "true calls" and "random calls" send those calls to the same experts.

{markdown_table(record.after, record.before)}
## Dialogue

One conversation about one test scene ({caption(record.scene)}):

{"".join(map(_describe, record.exchanges))}## Time

{times}

## Files

{_list_files(folder)}
- `run/`: the training run; `run/{record.recipe.stages[-1].name}` is the bundle, for `mmunify run` and `mmunify eval`
"""


def _describe(exchange: Exchange) -> str:
    made = "".join(f"- made: `{path.name}`\n" for path in exchange.files)
    problems = "".join(f"- problem: {problem}\n" for problem in exchange.reply.problems)
    return f"**{exchange.prompt}**\n\n- reply: `{exchange.reply.raw}`\n{made}{problems}- {exchange.verdict}\n\n"


def _list_files(folder: Path) -> str:
    """Files in the folder and in `artifacts`."""
    found = {path.relative_to(folder) for path in [*folder.glob("*.*"), *folder.glob("artifacts/*")]}
    return "\n".join(f"- `{path}`" for path in sorted({*found, Path("report.md")}))
