"""What a stage needs on each GPU, estimated before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from mmunify.commands.sizes import ADAMW_STATES, parts_of
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe, Stage
from mmunify.train.learns import select

SPLIT: Mapping[str, frozenset[str]] = {
    "fsdp2": frozenset({"weights", "gradients", "optimizer"}),
    "fsdp": frozenset({"weights", "gradients", "optimizer"}),
    "deepspeed_stage_1": frozenset({"optimizer"}),
    "deepspeed_stage_2": frozenset({"gradients", "optimizer"}),
    "deepspeed_stage_3": frozenset({"weights", "gradients", "optimizer"}),
}
"""Strategy -> what is divided among the processes, of the backbone and of parts in which something learns; frozen
towers stay whole. Other strategies divide nothing."""

PER_LAYER = 34
"""Numbers of two bytes that a transformer layer keeps per position and width for its backward pass, without a score
matrix (https://arxiv.org/abs/2205.05198, section 4.1)."""

HALF = 2


def per_gpu(recipe: Recipe, model: UnifiedModel, stage: Stage, path: str, positions: float) -> dict[str, int]:
    """Bytes on one GPU: weights, gradients, the optimiser's states, activations, their total; and the processes.

    Activations are those that the backbone keeps in a step; towers that learn and the heads' logits come on top.

    Args:
        recipe: of the run; its `trainer:` says precision, strategy and devices.
        model: of the stage, on any device.
        stage: says what learns.
        path: of the stage in the recipe.
        positions: of the largest batch, padding included.
    """
    processes, width = num_processes(recipe.trainer), HALF if is_half(recipe, stage) else None
    divided = SPLIT.get(strategy_name(recipe.trainer), frozenset())
    learning = {id(parameter) for parameter in select(model, stage.learns, f"{path}.learns")}
    parameters = parts_of(model)
    busy = {part for part, parameter in parameters if id(parameter) in learning}
    need = {"weights": 0.0, "gradients": 0.0, "optimizer": 0.0}
    for part, parameter in parameters:
        size, learns = parameter.numel() * (width or parameter.element_size()), id(parameter) in learning
        split = part in busy or part.startswith("backbone")
        for key, times in (("weights", 1), ("gradients", learns), ("optimizer", ADAMW_STATES * learns)):
            need[key] += size * times / (processes if split and key in divided else 1)
    need["activations"] = _activations(recipe, stage, model, positions)
    total = {"total": round(sum(need.values())), "processes": processes}
    return {key: round(value) for key, value in need.items()} | total


def num_processes(trainer: Mapping[str, Any]) -> int:
    """Processes of a run: devices times nodes; "auto" and -1 are those of this machine."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list | tuple):
        count = len(devices)
    elif devices in ("auto", -1, "-1"):
        count = _devices_here()
    else:
        count = int(devices)
    return max(1, count) * int(trainer.get("num_nodes", 1))


def strategy_name(trainer: Mapping[str, Any]) -> str:
    """Lightning's name of the strategy, without what follows it ("_offload", "_find_unused_parameters_true")."""
    given = trainer.get("strategy", "auto")
    name = str(given.get("name", "auto") if isinstance(given, Mapping) else given)
    return next((known for known in sorted(SPLIT, key=len, reverse=True) if name.startswith(known)), name)


def is_half(recipe: Recipe, stage: Stage) -> bool:
    """Whether weights themselves are of 16 bits ("bf16-mixed" computes in 16 bits and keeps 32)."""
    return _precision(recipe, stage) in ("bf16-true", "16-true")


def _precision(recipe: Recipe, stage: Stage) -> str:
    return str(stage.precision or recipe.trainer.get("precision", "32-true"))


def _activations(recipe: Recipe, stage: Stage, model: UnifiedModel, positions: float) -> float:
    if model.backbone is None:
        return 0.0
    width, depth = model.backbone.dim, model.backbone.num_layers
    size = 1 if _precision(recipe, stage).startswith(("bf16", "16")) else 2  # of two bytes
    layer = positions * width * PER_LAYER * size
    if recipe.trainer.get("recompute"):  # the input of every layer, and one layer as a whole
        return positions * width * HALF * size * depth + layer
    return layer * depth


def _devices_here() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 1
