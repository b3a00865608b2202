"""`check`: all faults of a recipe, the size of what it builds, what its data and its steps are like."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmunify.commands.train import Overrides, RecipeName

MIB = 2**20


def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write faults and sizes to this file.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Samples of every stage to look at; 0 = none.")] = 200,
    dry_run: Annotated[bool, typer.Option(help="Try a step of every stage, if the model is tiny.")] = True,
) -> None:
    """Report all faults of a recipe at once, offline, and what a run of it will be like.

    Example: mmunify check tiny/unifiedmllm stages.adapt.steps=10
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is imported, which no one has done yet
    from mmunify.commands.preflight import preflight
    from mmunify.commands.sizes import inspect_recipe
    from mmunify.errors import RecipeError
    from mmunify.faults import Fault
    from mmunify.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    report = preflight(loaded, samples, dry_run)
    faults = report.pop("faults")
    arms = {} if faults else {name: inspect_recipe(loaded.arm(name)) for name in loaded.ablate.arms}
    report |= {"arms": arms} if arms else {}
    for name, arm in arms.items():
        faults += [Fault(f"ablate.arms.{name}.{fault.path}", fault.message) for fault in arm.pop("faults")]
    if json_file is not None:
        listed = [{"path": fault.path, "message": fault.message} for fault in faults]
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"faults": listed, **report}, indent=2), encoding="utf-8")
    for remark in loaded.remarks():
        typer.echo(f"note: {remark}")
    if faults:
        raise RecipeError(faults)
    _print_report(loaded, report)


def _print_report(loaded: Any, report: Mapping[str, Any]) -> None:
    """What a recipe without faults is like."""
    if report["not_built"]:
        typer.echo(f"note: sizes are unknown, {report['not_built']}")
    _print_parts(loaded.name, [stage.name for stage in loaded.stages], report)
    for edge in report["edges"]:
        typer.echo(f"{edge['from']} -> {edge['to']}: {_shape(edge)}")
    for stage, budget in report["budget"].items():
        _print_stage(stage, budget, report["per_gpu"][stage], report["dry_run"].get(stage))
    for name, arm in report.get("arms", {}).items():
        _print_parts(f"arm {name}", [stage.name for stage in loaded.arm(name).stages], arm)


def _print_parts(name: str, stages: list[str], report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("part", title=f"{name}: no faults", title_justify="left")
    for column in ("parameters", *(f"learn in {stage}" for stage in stages)):
        table.add_column(column, justify="right")
    for part, row in report["parts"].items():
        table.add_row(part, f"{row['total']:,}", *(f"{row['trained'].get(stage, 0):,}" for stage in stages))
    Console().print(table)


def _print_stage(
    stage: str, budget: Mapping[str, Any] | None, memory: Mapping[str, int], tried: Mapping[str, float] | None
) -> None:
    """A paragraph on a stage."""
    parts = ", ".join(f"{key} {memory[key] / MIB:,.0f}" for key in ("weights", "gradients", "optimizer", "activations"))
    length = ", if all rows have max_length" if budget is None and memory["activations"] else ""
    lines = [f"about {memory['total'] / MIB:,.0f} MiB on each of {memory['processes']} ({parts}{length})"]
    if budget is not None:
        lines += [
            "positions per sample: {mean:.0f} on average, 95 % up to {p95:.0f}, the longest {longest}".format(**budget),
            "{media:.0%} hold media, {learned:.0%} are learned; {padding:.0%} of a batch is padding".format(**budget),
        ]
        if budget["unusable"]:
            lines.append(f"{budget['unusable']} of {budget['samples']} samples can't be used: {budget['problem']}")
    if tried is not None:
        lines.append(f"a small batch has a loss of {tried['loss']:.3g} and took {tried['seconds']:.2f} s")
    typer.echo(f"stage {stage}: " + "\n  ".join(lines))


def _shape(edge: Mapping[str, Any]) -> str:
    return f"width {edge['dim']}" if edge["tokens"] is None else f"{edge['tokens']} tokens of {edge['dim']}"
