"""`train`: runs the stages of a recipe one after the other, on one model, resumable between and inside them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mmunify.checkpoint import Bundle, load_bundle
from mmunify.data.mixture import Mixture
from mmunify.errors import UserError
from mmunify.recipe import Recipe, Stage
from mmunify.registry import DATASETS
from mmunify.train.callbacks import CheckpointCallback, ProgressCallback, SpeedCallback, quiet
from mmunify.train.folder import RunFolder, main_process
from mmunify.train.handover import hand_over
from mmunify.train.learns import PartCount, apply_learns, learned_names
from mmunify.train.loader import WindowLoader
from mmunify.train.module import StageModule, StagePlan
from mmunify.train.proof import ProofCallback
from mmunify.train.report import learns_table, peak_memory, write_report
from mmunify.train.trainer import make_loggers, make_trainer

SAVE_EVERY = 100


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[pl.Callback] = (),
    progress: bool = True,
    save_every: int = SAVE_EVERY,
) -> Bundle:
    """Train a recipe: all of its stages, in order, each starting from what the one before left.

    After every stage a bundle lies in `<out>/<stage>/`; `<out>/report.md` says what learned, the proof of it, and what
    it took; `<out>/logs/` holds a CSV per stage. With several processes, all of them call this function.

    Args:
        recipe: checked or not; its faults are raised before anything is built.
        out: folder of the run; default: the recipe's `out`, else `runs/<name>`.
        resume: go on where the run in `out` was interrupted: finished stages are skipped, an unfinished one continues
            from its last checkpoint, as if nothing had happened.
        callbacks: further Lightning callbacks, for every stage.
        progress: whether to show tables and progress bars.
        save_every: steps between two checkpoints.

    Returns:
        The bundle of the last stage.

    Raises:
        RecipeError: faults of the recipe.
        UserError: the folder holds a run and `resume` is off, or a run of another recipe.
        TrainingError: the proof of what learns fails, or losses stay infinite.
    """
    if not recipe.stages:
        raise UserError(f"recipe {recipe.name!r} has no stages; there is nothing to train")
    folder = RunFolder.open(out or recipe.out, recipe.name, _identity(recipe), resume)
    run = _Run(recipe, folder, list(callbacks), progress and main_process(), save_every)
    finished = [stage.name for stage in recipe.stages if folder.is_finished(stage.name)]
    bundle = load_bundle(folder.bundle(finished[-1]), allow_imports=True) if finished else Bundle(recipe, recipe.build())
    for index, stage in enumerate(recipe.stages):
        if stage.name not in finished:
            bundle = run.stage(index, stage, bundle, resume)
    return bundle


@dataclass(slots=True)
class _Run:
    """What the stages of one run share."""

    recipe: Recipe
    folder: RunFolder
    callbacks: list[pl.Callback]
    progress: bool
    save_every: int

    def stage(self, index: int, stage: Stage, before: Bundle, resume: bool) -> Bundle:
        """Run one stage on the model of the one before and save its bundle."""
        model = self._model(stage, before)
        counts = apply_learns(model, stage.learns, f"stages.{stage.name}.learns")
        if self.progress:
            _print(learns_table(counts, f"stage {stage.name}"))
        module = StageModule(model, self._plan(index, stage), partial(self._loader, index, stage, self._processor(before, model)))
        proof = ProofCallback(model, stage.name, stage.allow_idle)
        start = time.perf_counter()
        self._fit(stage, module, proof, resume)
        record = _record(stage, module, proof, counts, time.perf_counter() - start)
        bundle = Bundle(self._recipe_of(stage), model, before.learned | learned_names(model))
        self._finish(stage.name, bundle, record)
        return bundle
