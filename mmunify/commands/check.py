"""`check`: all faults of a recipe, and the size of what it builds."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmunify.commands.train import Overrides, RecipeName


def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write faults and sizes to this file.")] = None,
) -> None:
    """Report all faults of a recipe at once, offline.

    Example: mmunify check tiny/unifiedmllm stages.adapt.steps=10
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is imported, which no one has done yet
    from mmunify.commands.sizes import inspect_recipe
    from mmunify.errors import RecipeError
    from mmunify.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    report = inspect_recipe(loaded)
    faults = report.pop("faults")
    if json_file is not None:
        listed = [{"path": fault.path, "message": fault.message} for fault in faults]
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"faults": listed, **report}, indent=2), encoding="utf-8")
    for remark in loaded.remarks():
        typer.echo(f"note: {remark}")
    if faults:
        raise RecipeError(faults)
    if report["not_built"]:
        typer.echo(f"note: sizes are unknown, {report['not_built']}")
    _print(loaded.name, [stage.name for stage in loaded.stages], report)


def _print(name: str, stages: list[str], report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("part", title=f"{name}: no faults", title_justify="left")
    for column in ("parameters", *(f"learn in {stage}" for stage in stages)):
        table.add_column(column, justify="right")
    for part, row in report["parts"].items():
        table.add_row(part, f"{row['total']:,}", *(f"{row['trained'].get(stage, 0):,}" for stage in stages))
    memory = {stage: f"{sum(size.values()) / 2**20:,.0f} MiB" for stage, size in report["memory"].items()}
    console = Console()
    console.print(table)
    for stage, size in memory.items():
        console.print(f"stage {stage}: {size} for weights, gradients and the optimiser; activations come on top")
