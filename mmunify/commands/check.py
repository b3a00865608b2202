"""`check`: all faults of a recipe, and the size of what it builds."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmunify.commands.train import Overrides, RecipeName

if TYPE_CHECKING:
    from mmunify.faults import Fault
    from mmunify.model import UnifiedModel
    from mmunify.recipe import Recipe

ADAMW_STATES = 2
"""Numbers that AdamW keeps per learning parameter."""


def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write faults and sizes to this file.")] = None,
) -> None:
    """Report all faults of a recipe at once, offline.

    Example: mmunify check tiny/unifiedmllm stages.adapt.steps=10
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is imported, which no one has done yet
    from mmunify.errors import RecipeError
    from mmunify.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    report = inspect_recipe(loaded)
    faults: list[Fault] = report.pop("faults")
    if json_file is not None:
        listed = [{"path": fault.path, "message": fault.message} for fault in faults]
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"faults": listed, **report}, indent=2), encoding="utf-8")
    for remark in loaded.remarks():
        typer.echo(f"note: {remark}")
    if faults:
        raise RecipeError(faults)
    _print(loaded, report)


def inspect_recipe(recipe: "Recipe") -> dict[str, Any]:
    """Faults; if there are none, parameters per part, edges, and memory per stage.

    Returns:
        `faults`: a list of `Fault`. `parts`: part -> {"total", "trained": {stage: number}}. `edges`: from, to, width.
        `memory`: stage -> bytes of weights, gradients and AdamW's states (activations come on top).
    """
    from mmunify.errors import RecipeError

    report: dict[str, Any] = {"faults": recipe.check(), "parts": {}, "edges": [], "memory": {}}
    if report["faults"]:
        return report
    try:
        report["edges"] = edges(build_light(recipe))
    except RecipeError as error:
        return {**report, "faults": error.faults}
    for index, stage in enumerate(recipe.stages):
        try:
            _add_stage(report, recipe.at(stage), index)
        except RecipeError as error:
            report["faults"] += error.faults
    if not recipe.stages:
        _add_totals(report, build_light(recipe))
    return report


def build_light(recipe: "Recipe") -> "UnifiedModel":
    """The model without memory for its weights where its parts allow that, else the real one."""
    import torch

    from mmunify.errors import UserError

    try:
        with torch.device("meta"):
            return recipe.build()
    except UserError:
        raise
    except Exception:  # a part that reads weights from a folder cannot be built without memory
        return recipe.build()


def edges(model: "UnifiedModel") -> list[dict[str, Any]]:
    """Widths of what flows between parts: encoder -> adapter -> backbone -> head."""
    found: list[dict[str, Any]] = []
    width = model.backbone.dim if model.backbone is not None else None
    for name in model.adapters:
        source = model.wiring[f"adapters.{name}"].source
        encoder = model.encoders[source.partition(".")[2]]
        found.append({"from": source, "to": f"adapters.{name}", "dim": encoder.out_dim})
        found.append({"from": f"adapters.{name}", "to": "backbone", "dim": width})
    return [*found, *({"from": "backbone", "to": f"heads.{name}", "dim": width} for name in model.heads)]


def _add_stage(report: dict[str, Any], recipe: "Recipe", index: int) -> None:
    from mmunify.train.learns import select

    stage, model = recipe.stages[index], build_light(recipe)
    _add_totals(report, model)
    learning = {id(parameter) for parameter in select(model, stage.learns, f"stages.{index}.learns")}
    size = {"weights": 0, "gradients": 0, "optimizer": 0}
    for part, parameter in _parameters(model):
        learns, num_bytes = id(parameter) in learning, parameter.numel() * parameter.element_size()
        trained = report["parts"][part]["trained"]
        trained[stage.name] = trained.get(stage.name, 0) + parameter.numel() * learns
        size["weights"] += num_bytes
        size["gradients"] += num_bytes * learns
        size["optimizer"] += ADAMW_STATES * num_bytes * learns
    report["memory"][stage.name] = size


def _add_totals(report: dict[str, Any], model: "UnifiedModel") -> None:
    totals: dict[str, int] = {}
    for part, parameter in _parameters(model):
        totals[part] = totals.get(part, 0) + parameter.numel()
    for part, total in totals.items():
        report["parts"].setdefault(part, {"total": total, "trained": {}})["total"] = total


def _parameters(model: "UnifiedModel") -> list[tuple[str, Any]]:
    from mmunify.train.learns import parameter_names, part_of

    return [(part_of(names[0]), parameter) for parameter, names in parameter_names(model)]


def _print(recipe: "Recipe", report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("part", title=f"{recipe.name}: no faults", title_justify="left")
    for column in ("parameters", *(f"learn in {stage.name}" for stage in recipe.stages)):
        table.add_column(column, justify="right")
    for part, row in report["parts"].items():
        table.add_row(part, f"{row['total']:,}", *(f"{row['trained'].get(s.name, 0):,}" for s in recipe.stages))
    memory = {name: f"{sum(size.values()) / 2**20:,.0f} MiB" for name, size in report["memory"].items()}
    console = Console()
    console.print(table)
    for stage, size in memory.items():
        console.print(f"stage {stage}: {size} for weights, gradients and the optimiser; activations come on top")
