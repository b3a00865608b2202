"""What can be known of a run before it starts: its data, its memory, and a step of every stage where that is cheap."""

import math
import time
from typing import Any

from mmunify.commands.budget import stage_budget
from mmunify.commands.memory import per_gpu
from mmunify.commands.sizes import inspect_recipe
from mmunify.data.processor import Processor
from mmunify.errors import MMUnifyError, UserError
from mmunify.faults import Fault
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe
from mmunify.train.learns import apply_learns
from mmunify.train.loader import stage_samples
from mmunify.train.strategies import strategy_faults

TINY = 20_000_000
"""Parameters up to which a model is built and a step is tried."""

DRY_SAMPLES = 4


def preflight(recipe: Recipe, num_samples: int, dry_run: bool) -> dict[str, Any]:
    """All that `inspect_recipe` tells, and per stage what its data and its steps are like.

    Args:
        recipe: to be checked.
        num_samples: of every stage's data to look at; 0 = none.
        dry_run: whether a step of every stage is tried, if the model is tiny.

    Returns:
        Beside what `inspect_recipe` returns, by stage: `budget` (see `Budget`; None without a backbone), `per_gpu` (see
        `per_gpu`), `dry_run` (loss and seconds of one small batch).
    """
    found: dict[str, dict[str, Any]] = {"budget": {}, "per_gpu": {}, "dry_run": {}}
    faults: list[Fault] = strategy_faults(recipe)

    def visit(model: UnifiedModel, index: int) -> None:
        stage, path = recipe.stages[index], f"stages.{index}"
        try:
            budget = stage_budget(recipe, model, index, num_samples) if num_samples else None
        except UserError as error:
            faults.append(Fault(f"{path}.data", str(error)))
            return
        positions = recipe.max_length * stage.batch_size if budget is None else budget["batch"]
        found["budget"][stage.name] = budget
        found["per_gpu"][stage.name] = per_gpu(recipe, model, stage, path, positions)

    report = inspect_recipe(recipe, visit)
    small = 0 < sum(row["total"] for row in report["parts"].values()) <= TINY
    if dry_run and small and not faults and not report["faults"] and not report["not_built"]:
        for index, stage in enumerate(recipe.stages):
            try:
                found["dry_run"][stage.name] = try_stage(recipe, index)
            except (MMUnifyError, RuntimeError) as error:
                faults.append(Fault(f"stages.{index}", f"a step with its first samples fails: {error}"))
    return {**report, **found, "faults": [*report["faults"], *faults]}


def try_stage(recipe: Recipe, index: int) -> dict[str, float]:
    """Forward and backward of a stage's first samples, with fresh weights where earlier stages would have left theirs.

    Raises:
        MMUnifyError, RuntimeError: whatever a step can raise.
    """
    stage = recipe.stages[index]
    model = recipe.at(stage).build()
    apply_learns(model, stage.learns, f"stages.{index}.learns")
    tokenizer = model.backbone.tokenizer if model.backbone is not None else None
    processor = Processor(model.spec(), tokenizer, model.tokens, recipe.chat, recipe.max_length)
    samples = stage_samples(stage, [recipe.seed, index])
    batch = processor([samples[k] for k in range(min(stage.batch_size, DRY_SAMPLES))])
    start = time.perf_counter()
    total = model.train()(batch).total
    total.backward()
    loss = float(total.detach())
    if not math.isfinite(loss):
        raise RuntimeError(f"its loss is {loss}")
    return {"loss": loss, "seconds": time.perf_counter() - start}
