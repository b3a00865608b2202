"""`ablate`: every arm with every seed, trained, measured and compared; finished cells are skipped."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmunify.ablate.comparison import Comparison
from mmunify.ablate.outcome import Outcome, load_outcome
from mmunify.ablate.plan import Cell, plan
from mmunify.ablate.runs import Runs
from mmunify.checkpoint import Bundle
from mmunify.evaluate.report import as_json
from mmunify.evaluate.run import evaluate
from mmunify.recipe import Recipe
from mmunify.train.folder import main_process


def ablate(
    recipe: Recipe,
    out: str | Path | None = None,
    reuse: Sequence[str | Path] = (),
    progress: bool = True,
) -> Comparison:
    """Train and measure every arm of a recipe with every seed.

    Stages that several cells have in common are trained once. What is finished is never done again, as long as nothing
    that it depends on has changed, so an interrupted ablation goes on where it was. A cell that fails is recorded with
    its error, and tried again the next time. The tables in the folder are written anew after every cell.

    Args:
        recipe: with `ablate.arms`; its faults, and those of all arms, are raised before anything is built.
        out: folder; default: the recipe's `out`, else `runs/<name>`.
        reuse: folders of finished runs, whose stages are taken over where recipe and seed are the same.
        progress: whether to show tables and progress bars.

    Raises:
        RecipeError: faults of the recipe or of an arm.
        UserError: no arms, or something in `reuse` is no run.
    """
    recipe.validate()
    cells = plan(recipe)
    folder = Path(out or recipe.out or Path("runs") / (recipe.name or "ablation")).expanduser().absolute()
    shown = progress and main_process()
    runs = Runs(folder / "stages", reuse, shown)
    comparison = Comparison(name=recipe.name, measures=recipe.ablate.measures, outcomes=[], planned=len(cells))
    for number, cell in enumerate(cells, start=1):
        known = load_outcome(folder / "cells" / cell.file, cell.fingerprint)
        if shown:
            _tell(f"{number} of {len(cells)}: {cell.arm}, seed {cell.seed}{' (finished before)' if known else ''}")
        outcome = known or _run(cell, runs, folder, shown)
        comparison = replace(comparison, outcomes=[*comparison.outcomes, outcome])
        if main_process():
            comparison.save(folder)
    if shown:
        comparison.print()
        _tell(f"tables: {folder / 'table.md'}, table.csv, results.json")
    return comparison


def _run(cell: Cell, runs: Runs, folder: Path, progress: bool) -> Outcome:
    """Train and measure one cell; whatever goes wrong becomes its outcome."""
    outcome = Outcome(arm=cell.arm, seed=cell.seed, fingerprint=cell.fingerprint)
    start = time.perf_counter()
    try:
        bundle = runs.reach(cell)
        outcome = replace(outcome, run=str(runs.path(cell).relative_to(folder)), **_cost(cell, runs))
        if main_process():
            outcome = replace(outcome, values=_measure(cell, bundle, progress))
    except Exception as error:  # one arm's failure must not cost the others
        words = f"{type(error).__name__}: {error}"
        outcome = replace(outcome, error=words, trace=traceback.format_exc())
        if progress:
            _tell(f"failed after {time.perf_counter() - start:.0f} s: {words}")
    if main_process():
        outcome.save(folder / "cells" / cell.file)
    return outcome


def _cost(cell: Cell, runs: Runs) -> dict[str, Any]:
    """Parameters that learned in the last stage, seconds of all that the seed reaches."""
    records = list(runs.records(cell).values())
    if not records:
        return {}
    trained = sum(part["trained"] for part in records[-1]["learns"])
    return {"trained": trained, "seconds": sum(record["seconds"] for record in records)}


def _measure(cell: Cell, bundle: Bundle, progress: bool) -> dict[str, Any]:
    """All protocols of the arm's recipe, without baselines: an ablation compares arms."""
    wanted = cell.recipe.evaluate
    used = replace(bundle.recipe, experts=cell.recipe.experts)
    results = evaluate(
        replace(bundle, recipe=used),
        wanted.protocols or None,
        num_samples=wanted.num_samples,
        progress=progress,
        baselines=False,
    )
    return as_json(results)


def _tell(words: str) -> None:
    from rich.console import Console

    Console().print(words, markup=False, highlight=False)
