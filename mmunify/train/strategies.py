"""What a strategy can't do, told before anything is built."""

from collections.abc import Mapping
from typing import Any

from mmunify.errors import RecipeError
from mmunify.faults import Fault, unknown
from mmunify.recipe import Recipe, Stage

ZERO: Mapping[str, int] = {
    "deepspeed": 2,
    "deepspeed_stage_1": 1,
    "deepspeed_stage_2": 2,
    "deepspeed_stage_3": 3,
}
"""DeepSpeed's strategies that a run can have, with the stage of ZeRO."""

PRECISIONS = ("32", "32-true", "bf16", "bf16-mixed")
"""Of ZeRO: what Lightning takes for weights of 32 bits without scaled losses."""


def is_deepspeed(strategy: Any) -> bool:
    """Whether `trainer.strategy` names one of DeepSpeed's."""
    return isinstance(strategy, str) and strategy.startswith("deepspeed")


def zero_stage(name: str) -> int:
    """The stage of ZeRO that a strategy of DeepSpeed's means.

    Raises:
        RecipeError: one that isn't supported.
    """
    faults = _name_faults(name)
    if faults:
        raise RecipeError(faults)
    return ZERO[name]


def strategy_faults(recipe: Recipe) -> list[Fault]:
    """Faults of `trainer.strategy`, and of stages that ask for what it can't do."""
    strategy = recipe.trainer.get("strategy")
    name = str(strategy.get("name") if isinstance(strategy, Mapping) else strategy)
    stages = [(f"stages.{index}", stage) for index, stage in enumerate(recipe.stages)]
    if is_deepspeed(strategy):
        found = [fault for path, each in stages for fault in _zero_faults(recipe, each, path)]
        return [*_name_faults(name), *dict.fromkeys(found)]
    return [_eight_bits(path, name) for path, each in stages if name == "fsdp2" and _is_eight_bits(each)]


def _name_faults(name: str) -> list[Fault]:
    if name in ZERO:
        return []
    path = "trainer.strategy"
    if name.endswith(("offload", "nvme")):
        message = f"{name} is not supported; {{name: fsdp2, cpu_offload: true}} splits and keeps the same and is tested"
        return [Fault(path, f"{message}. Of DeepSpeed's there are {', '.join(ZERO)}")]
    return [Fault(path, unknown("strategy", name, list(ZERO)))]


def _zero_faults(recipe: Recipe, stage: Stage, path: str) -> list[Fault]:
    faults = [_eight_bits(path, "deepspeed")] if _is_eight_bits(stage) else []
    precision = str(stage.precision or recipe.trainer.get("precision", "32-true"))
    if precision not in PRECISIONS:
        at = f"{path}.precision" if stage.precision else "trainer.precision"
        faults.append(Fault(at, f"deepspeed takes {', '.join(PRECISIONS)}; got {precision!r}"))
    if stage.gradient_cosine:
        message = "deepspeed takes gradients away before they can be compared; set it to 0, or use ddp or fsdp2"
        faults.append(Fault(f"{path}.gradient_cosine", message))
    return faults


def _is_eight_bits(stage: Stage) -> bool:
    return stage.optim.name == "adamw_8bit"


def _eight_bits(path: str, strategy: str) -> Fault:
    message = f"adamw_8bit can't step tensors that {strategy} splits; use adamw (its states are split), or ddp"
    return Fault(f"{path}.optim.name", message)
