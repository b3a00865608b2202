"""What a recipe builds: parameters per part, widths between parts, memory per stage."""

from collections.abc import Callable
from typing import Any

import torch

from mmunify.errors import RecipeError, UserError
from mmunify.layers.tiling import Dynamic
from mmunify.model import UnifiedModel
from mmunify.parts import Encoder
from mmunify.recipe import Recipe, Stage
from mmunify.tokens.slots import num_places
from mmunify.train.learns import parameter_names, part_of, select

ADAMW_STATES = 2
"""Numbers that AdamW keeps per learning parameter."""


Visit = Callable[[UnifiedModel, int], None]
"""Called with the model of every stage, on the meta device where its parts allow that, and the stage's number."""


def inspect_recipe(recipe: Recipe, visit: Visit | None = None) -> dict[str, Any]:
    """Faults; if there are none, parameters per part, edges, and memory per stage.

    Args:
        recipe: to be inspected.
        visit: looks at the models that are built for it anyway.

    Returns:
        `faults`: a list of `Fault`. `parts`: part -> {"total", "trained": {stage: number}}. `edges`: from, to, width,
        tokens per item (None where they depend on the item). `memory`: stage -> bytes of weights, gradients and AdamW's
        states (activations come on top). `not_built`: why the model could not be built to be measured (weights that
        aren't on this machine), else None.
    """
    report: dict[str, Any] = {"faults": recipe.check(), "parts": {}, "edges": [], "memory": {}, "not_built": None}
    if report["faults"]:
        return report
    try:
        _measure(recipe, report, visit)
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


def _measure(recipe: Recipe, report: dict[str, Any], visit: Visit | None) -> None:
    model = build_light(recipe)
    report["edges"] = edges(model)
    _add_totals(report, model)
    for index, stage in enumerate(recipe.stages):
        try:
            own = build_light(recipe.at(stage)) if stage.model else model
            _add_stage(report, own, stage, index)
            if visit is not None:
                visit(own, index)
        except RecipeError as error:
            report["faults"] += error.faults


def edges(model: UnifiedModel) -> list[dict[str, Any]]:
    """What flows between parts, encoder -> adapter -> backbone -> head: its width, and tokens per item."""
    found: list[dict[str, Any]] = []
    width = model.backbone.dim if model.backbone is not None else None
    for name in model.adapters:
        source = model.wiring[f"adapters.{name}"].source
        encoder: Encoder = model.encoders[source.partition(".")[2]]  # type: ignore[assignment]
        layout = encoder.layout_of(model.wiring[source].kind)
        dynamic = isinstance(encoder.preprocess, Dynamic)
        slots = model.adapters[name].layout(layout).num_slots  # type: ignore[operator]
        tokens, slots = (None, None) if dynamic else (layout.num_slots, slots)
        found.append({"from": source, "to": f"adapters.{name}", "dim": encoder.out_dim, "tokens": tokens})
        found.append({"from": f"adapters.{name}", "to": "backbone", "dim": width, "tokens": slots})
    return [*found, *(_head_edge(model, name, head) for name, head in model.heads.items())]


def _head_edge(model: UnifiedModel, name: str, head: Any) -> dict[str, Any]:
    spec = head.spec
    tokens = None if spec is None or spec.as_text else num_places(spec)
    if model.backbone is not None:
        return {"from": "backbone", "to": f"heads.{name}", "dim": model.backbone.dim, "tokens": tokens}
    source = model.wiring[f"heads.{name}"].source
    read = source if source.startswith("encoders.") else f"encoders.{next(iter(model.encoders))}"
    encoder: Encoder = model.get_submodule(read)  # type: ignore[assignment]
    return {"from": read, "to": f"heads.{name}", "dim": encoder.out_dim, "tokens": tokens}


def _add_stage(report: dict[str, Any], model: UnifiedModel, stage: Stage, index: int) -> None:
    _add_totals(report, model)
    learning = {id(parameter) for parameter in select(model, stage.learns, f"stages.{index}.learns")}
    size = {"weights": 0, "gradients": 0, "optimizer": 0}
    for part, parameter in parts_of(model):
        learns, num_bytes = id(parameter) in learning, parameter.numel() * parameter.element_size()
        trained = report["parts"][part]["trained"]
        trained[stage.name] = trained.get(stage.name, 0) + parameter.numel() * learns
        size["weights"] += num_bytes
        size["gradients"] += num_bytes * learns
        size["optimizer"] += ADAMW_STATES * num_bytes * learns
    report["memory"][stage.name] = size


def _add_totals(report: dict[str, Any], model: UnifiedModel) -> None:
    totals: dict[str, int] = {}
    for part, parameter in parts_of(model):
        totals[part] = totals.get(part, 0) + parameter.numel()
    for part, total in totals.items():
        report["parts"].setdefault(part, {"total": total, "trained": {}})["total"] = total


def parts_of(model: UnifiedModel) -> list[tuple[str, Any]]:
    """Every parameter once, with the part that it belongs to."""
    return [(part_of(names[0]), parameter) for parameter, names in parameter_names(model)]
