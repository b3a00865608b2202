"""`train`: runs the stages of a recipe one after the other, on one model, resumable between and inside them."""

import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mmunify.checkpoint import Bundle, load_bundle
from mmunify.data.processor import Processor
from mmunify.errors import CheckpointError, UserError
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe, Stage
from mmunify.train.callbacks import CheckpointCallback, ProgressCallback, SpeedCallback, quiet
from mmunify.train.folder import RunFolder, main_process
from mmunify.train.gates import GateCallback
from mmunify.train.handover import hand_over
from mmunify.train.learns import PartCount, apply_learns, learned_names
from mmunify.train.loader import WindowLoader, stage_samples
from mmunify.train.module import StageModule
from mmunify.train.proof import Proof, ProofCallback
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
        The bundle of the last stage, its model in eval mode.

    Raises:
        RecipeError: faults of the recipe.
        UserError: the folder holds a run and `resume` is off, or a run of another recipe.
        CheckpointError: what a run to resume left can't be read.
        TrainingError: the proof of what learns fails, or losses stay infinite.
    """
    if not recipe.stages:
        raise UserError(f"recipe {recipe.name!r} has no stages; there is nothing to train")
    folder = RunFolder.open(out or recipe.out, recipe.name, _identity(recipe), resume)
    run = _Run(recipe, folder, list(callbacks), progress and main_process(), save_every)
    finished = [stage.name for stage in recipe.stages if folder.is_finished(stage.name)]
    last = folder.bundle(finished[-1]) if finished else None
    bundle = load_bundle(last, allow_imports=True) if last else Bundle(recipe, recipe.build())
    for index, stage in enumerate(recipe.stages):
        if stage.name not in finished:
            bundle = run.stage(index, stage, bundle, resume)
    bundle.model.eval().zero_grad()
    if run.progress:
        _print(f"report: {folder.path / 'report.md'}")
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
        bundle = Bundle(self._recipe_at(stage), model, before.learned | learned_names(model))
        loader = partial(self._loader, index, stage, bundle.processor())
        first_step = sum(earlier.steps for earlier in self.recipe.stages[:index])
        module = StageModule(model, stage, loader, self.recipe.seed, first_step)
        proof = ProofCallback(model, stage.name, stage.allow_idle)
        start = time.perf_counter()
        self._fit(stage, module, proof, resume)
        record = _record(stage, module, proof.proof, counts, time.perf_counter() - start)
        self._finish(stage.name, bundle, record)
        return bundle

    def _recipe_at(self, stage: Stage) -> Recipe:
        """The recipe with the stage's model, but with the run's loss weights: those of a stage end with it."""
        recipe = self.recipe.at(stage)
        return replace(recipe, model=replace(recipe.model, weights=self.recipe.model.weights))

    def _model(self, stage: Stage, before: Bundle) -> UnifiedModel:
        """The model of the stage before, or a new one with its tensors where the stage changes the model."""
        model, recipe = before.model, self._recipe_at(stage)
        if recipe.model != before.recipe.model:
            model = hand_over(model, recipe.build(), stage.fresh, f"stages.{stage.name}.fresh")
        model.weights.clear()
        model.weights.update(self.recipe.at(stage).model.weights)
        return model

    def _fit(self, stage: Stage, module: StageModule, proof: ProofCallback, resume: bool) -> None:
        checkpoint = self.folder.checkpoint(stage.name)
        bar = [ProgressCallback(stage.name, stage.steps)] if self.progress else []
        saving = CheckpointCallback(checkpoint, self.save_every)
        gates = GateCallback(self.folder.path, stage.name)
        callbacks = [SpeedCallback(), proof, gates, *bar, *self.callbacks, saving]
        options = {**self.recipe.trainer, **({"precision": stage.precision} if stage.precision else {})}
        with quiet():
            trainer = make_trainer(
                options,
                steps=stage.steps,
                callbacks=callbacks,
                loggers=make_loggers(self.folder.path, stage.name),
                folder=self.folder.path,
            )
            start = _readable(checkpoint) if resume and checkpoint.exists() else None
            # Lightning's format is read as plain data too: nothing in a checkpoint can run code.
            trainer.fit(module, ckpt_path=start, weights_only=True if start else None)

    def _finish(self, stage: str, bundle: Bundle, record: dict[str, Any]) -> None:
        if main_process():
            bundle.save(self.folder.bundle(stage))
        self.folder.finish(stage, record)
        if main_process():
            write_report(self.folder.path, self.recipe.to_dict(), self.folder.records)

    def _loader(self, index: int, stage: Stage, processor: Processor, rank: int, world: int, pin: bool) -> WindowLoader:
        return WindowLoader(
            stage_samples(stage, [self.recipe.seed, index]),
            processor,
            batch_size=stage.batch_size,
            steps=stage.steps,
            accumulate=stage.accumulate,
            rank=rank,
            world=world,
            num_workers=stage.num_workers,
            pin_memory=pin,
        )


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What a resumed run must have in common with the interrupted one; where and how fast it runs may differ."""
    tree = recipe.to_dict()
    return {key: tree[key] for key in ("seed", "chat", "max_length", "model", "tokens", "stages")}


def _record(
    stage: Stage, module: StageModule, proof: Proof, counts: Sequence[PartCount], seconds: float
) -> dict[str, Any]:
    """What the report says of a stage."""
    curve = module.curve
    tenth = max(1, len(curve) // 10)
    return {
        "steps": stage.steps,
        "dropped": module.num_dropped,
        "first_loss": sum(curve[:tenth]) / tenth,
        "final_loss": sum(curve[-tenth:]) / tenth,
        "last_metrics": module.step_metrics,
        "seconds": seconds,
        "peak_memory": peak_memory(),
        "learns": [asdict(count) for count in counts],
        "proof": asdict(proof),
    }


def _readable(checkpoint: Path) -> Path:
    if not zipfile.is_zipfile(checkpoint):
        raise CheckpointError(f"{checkpoint} is truncated; delete it to start its stage anew")
    return checkpoint


def _print(thing: Any) -> None:
    from rich.console import Console

    Console().print(thing)
