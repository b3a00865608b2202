"""What a recipe builds: parameters per part, widths between parts, memory per stage."""

from typing import Any

import torch

from mmunify.errors import RecipeError, UserError
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe, Stage
from mmunify.train.learns import parameter_names, part_of, select

ADAMW_STATES = 2
"""Numbers that AdamW keeps per learning parameter."""


def inspect_recipe(recipe: Recipe) -> dict[str, Any]:
    """Faults; if there are none, parameters per part, edges, and memory per stage.

    Returns:
        `faults`: a list of `Fault`. `parts`: part -> {"total", "trained": {stage: number}}. `edges`: from, to, width.
        `memory`: stage -> bytes of weights, gradients and AdamW's states (activations come on top). `not_built`: why
        the model could not be built to be measured (weights that aren't on this machine), else None.
    """
    report: dict[str, Any] = {"faults": recipe.check(), "parts": {}, "edges": [], "memory": {}, "not_built": None}
    if report["faults"]:
        return report
    try:
        _measure(recipe, report)
    except RecipeError as error:
        report["faults"] += error.faults
    except UserError as error:
        report["not_built"] = str(error)
    return report


def build_light(recipe: Recipe) -> UnifiedModel:
    """The model without memory for its weights where its parts allow that, else the real one."""
    try:
        with torch.device("meta"):
            return recipe.build()
    except Exception:  # parts that read weights from files cannot do without memory; other errors come again
        return recipe.build()


def _measure(recipe: Recipe, report: dict[str, Any]) -> None:
    model = build_light(recipe)
    report["edges"] = edges(model)
    _add_totals(report, model)
    for index, stage in enumerate(recipe.stages):
        try:
            _add_stage(report, build_light(recipe.at(stage)) if stage.model else model, stage, index)
        except RecipeError as error:
            report["faults"] += error.faults


def edges(model: UnifiedModel) -> list[dict[str, Any]]:
    """Widths of what flows between parts: encoder -> adapter -> backbone -> head."""
    found: list[dict[str, Any]] = []
    width = model.backbone.dim if model.backbone is not None else None
    for name in model.adapters:
        source = model.wiring[f"adapters.{name}"].source
        encoder = model.encoders[source.partition(".")[2]]
        found.append({"from": source, "to": f"adapters.{name}", "dim": encoder.out_dim})
        found.append({"from": f"adapters.{name}", "to": "backbone", "dim": width})
    return [*found, *({"from": "backbone", "to": f"heads.{name}", "dim": width} for name in model.heads)]


def _add_stage(report: dict[str, Any], model: UnifiedModel, stage: Stage, index: int) -> None:
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


def _add_totals(report: dict[str, Any], model: UnifiedModel) -> None:
    totals: dict[str, int] = {}
    for part, parameter in _parameters(model):
        totals[part] = totals.get(part, 0) + parameter.numel()
    for part, total in totals.items():
        report["parts"].setdefault(part, {"total": total, "trained": {}})["total"] = total


def _parameters(model: UnifiedModel) -> list[tuple[str, Any]]:
    return [(part_of(names[0]), parameter) for parameter, names in parameter_names(model)]
