"""`train`: runs the stages of a recipe one after the other, on one model, resumable between and inside them."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mmunify.checkpoint import Bundle, load_bundle
from mmunify.checkpoint.shards import CheckpointReader
from mmunify.data.cache.feature_cache import FeatureCache
from mmunify.data.processor import Processor
from mmunify.errors import RecipeError, UserError
from mmunify.faults import unknown
from mmunify.recipe import Recipe, Stage
from mmunify.train.caching import caching, open_cache
from mmunify.train.callbacks import CheckpointCallback, ProgressCallback, quiet
from mmunify.train.folder import RunFolder, main_process
from mmunify.train.gates import GateCallback
from mmunify.train.gathering import RECIPE_FILE, build, gathered, reloaded
from mmunify.train.handover import model_of_stage, recipe_of_stage
from mmunify.train.learns import PartCount, apply_learns, learned_names
from mmunify.train.loader import WindowLoader, require_packing, stage_batches, stage_samples, stage_steps
from mmunify.train.module import StageModule
from mmunify.train.proof import Proof, ProofCallback
from mmunify.train.report import learns_table, peak_memory, write_report
from mmunify.train.sharding import Sharding
from mmunify.train.speed import SpeedCallback
from mmunify.train.strategies import is_deepspeed, strategy_faults
from mmunify.train.trainer import layer_options, make_loggers, make_trainer, sharding
from mmunify.train.watch import RankWatch

SAVE_EVERY = 100
ELASTIC = (
    *("batch_size", "accumulate", "num_workers", "precision", "max_dropped"),
    *("packing", "batch_tokens", "bad_samples", "gradient_cosine"),
)
"""Of a stage, what may change when a run is resumed."""


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[pl.Callback] = (),
    progress: bool = True,
    save_every: int = SAVE_EVERY,
    stage: str | None = None,
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
        stage: run this one alone, from the bundle that its `start:` names or that earlier stages left in `out`.

    Returns:
        The bundle of the last stage, its model in eval mode.

    Raises:
        RecipeError: faults of the recipe, or a strategy that this machine can't run.
        UserError: the folder holds a run and `resume` is off, or a run of another recipe; no such stage, or nothing
            that it could start from; a cache folder that can't be written.
        CheckpointError: what a run to resume left can't be read.
        TrainingError: the proof of what learns fails, losses stay infinite, or another process died.
    """
    if not recipe.stages:
        raise UserError(f"recipe {recipe.name!r} has no stages; there is nothing to train")
    names = [each.name for each in recipe.stages]
    if stage is not None and stage not in names:
        raise UserError(unknown("stage", stage, names))
    recipe.validate()
    faults = strategy_faults(recipe)
    if faults:
        raise RecipeError(faults)
    folder = RunFolder.open(out or recipe.out, recipe.name, run_identity(recipe), resume or stage is not None)
    if main_process():
        recipe.save(folder.path / RECIPE_FILE)
    run = _Run(recipe, folder, list(callbacks), progress and main_process(), save_every, cache=open_cache(recipe))
    bundle = run.run([names.index(stage)] if stage else range(len(names)), resume)
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
    children: list[Any] = field(default_factory=list)
    loader: WindowLoader | None = None
    cache: FeatureCache | None = None

    def run(self, indices: Sequence[int], resume: bool) -> Bundle:
        """Run the stages that aren't finished; those before the first one are not looked at again."""
        stages = self.recipe.stages
        todo = [index for index in indices if not self.folder.is_finished(stages[index].name)]
        if not todo and not resume:
            raise UserError(
                f"stage {stages[indices[0]].name!r} is finished in {self.folder.path}; choose another folder (--out)"
            )
        bundle = None
        for index in todo:
            before = self._before(index) if bundle is None or stages[index].start is not None else bundle
            bundle = self.stage(index, stages[index], before, resume)
        return bundle or self._left_by(stages[indices[-1]].name)

    def _before(self, index: int) -> Bundle:
        """What a stage starts from: the bundle that it names, a new model, or what the stage before has left."""
        stage = self.recipe.stages[index]
        if stage.start is not None:
            return load_bundle(stage.start, allow_imports=bool(self.recipe.imports))
        if index == 0:
            return Bundle(self.recipe, build(self.recipe, self._meta))
        earlier = self.recipe.stages[index - 1].name
        if not self.folder.is_finished(earlier):
            raise UserError(
                f"stage {stage.name!r} starts from what {earlier!r} leaves, not finished in {self.folder.path}; "
                f"train that one first, or say stages.{stage.name}.start=BUNDLE"
            )
        return self._left_by(earlier)

    def _left_by(self, stage: str) -> Bundle:
        return reloaded(self.folder.bundle(stage), self._meta)

    def stage(self, index: int, stage: Stage, before: Bundle, resume: bool) -> Bundle:
        """Run one stage on the model of the one before and save its bundle."""
        model = model_of_stage(self.recipe, stage, before, partial(build, meta=self._meta))
        counts = apply_learns(model, stage.learns, f"stages.{stage.name}.learns")
        if self.progress:
            _print(learns_table(counts, f"stage {stage.name}"))
        bundle = Bundle(recipe_of_stage(self.recipe, stage), model, before.learned | learned_names(model))
        require_packing(stage, model)
        processor = bundle.processor()
        proof = ProofCallback(model, stage.name, stage.allow_idle)
        with quiet():
            trainer = self._trainer(stage, proof)
        stage = self._with_steps(index, stage, processor, trainer.world_size)
        loader = partial(self._loader, index, stage, processor)
        first_step = sum(self._steps_of(earlier) for earlier in self.recipe.stages[:index])
        layers = layer_options(self.recipe.trainer)
        module = StageModule(model, stage, loader, self.recipe.seed, first_step, layers)
        start = time.perf_counter()
        with caching(self.cache, bundle.recipe, model, processor, self._precision(stage)), quiet():
            self._fit(trainer, module, resume)
        record = _record(stage, module, proof.proof, counts, time.perf_counter() - start)
        if self.loader is not None:
            record["bad_samples"] = self.loader.bad_samples.state_dict()
        return self._finish(stage.name, bundle, record)

    def _with_steps(self, index: int, stage: Stage, processor: Processor, world: int) -> Stage:
        """The stage with its number of steps, where it is measured in epochs or tokens."""
        if stage.steps:
            return stage
        samples = stage_samples(stage, [self.recipe.seed, index])
        return replace(stage, steps=stage_steps(stage, samples, stage_batches(stage, processor), world))

    def _precision(self, stage: Stage) -> str:
        return str(stage.precision or self.recipe.trainer.get("precision", "32-true"))

    def _steps_of(self, stage: Stage) -> int:
        """Steps that an earlier stage took, or would take."""
        return self.folder.records.get(stage.name, {}).get("steps", stage.steps)

    @property
    def _sharding(self) -> Sharding | None:
        return sharding(self.recipe.trainer.get("strategy"))

    @property
    def _is_split(self) -> bool:
        """Whether a strategy keeps its hands on the model, so that the next stage needs another one."""
        return self._sharding is not None or is_deepspeed(self.recipe.trainer.get("strategy"))

    @property
    def _meta(self) -> bool:
        return self._sharding is not None and self._sharding.meta

    def _trainer(self, stage: Stage, proof: ProofCallback) -> pl.Trainer:
        bar = [ProgressCallback(stage.name)] if self.progress else []
        saving = CheckpointCallback(self.folder.checkpoint(stage.name), self.save_every)
        gates = GateCallback(self.folder.path, stage.name)
        options = {**self.recipe.trainer, **({"precision": stage.precision} if stage.precision else {})}
        return make_trainer(
            options,
            callbacks=[SpeedCallback(), proof, gates, *bar, *self.callbacks, saving],
            loggers=make_loggers(self.folder.path, stage.name, options.get("loggers")),
            folder=self.folder.path,
        )

    def _fit(self, trainer: pl.Trainer, module: StageModule, resume: bool) -> None:
        checkpoint = self.folder.checkpoint(module.stage.name)
        start = CheckpointReader(checkpoint).path if resume and checkpoint.exists() else None
        with RankWatch(self.folder.path, trainer.global_rank, partial(self._children, trainer)).watching():
            # Lightning's format is read as plain data too: nothing in a checkpoint can run code.
            trainer.fit(module, ckpt_path=start, weights_only=True if start else None)
        module.layers.undo(module.model)
        if module.average is not None:
            module.average.copy_into(module.model)

    def _children(self, trainer: pl.Trainer) -> list[Any]:
        """Processes that the first stage's trainer launched; they stay for all stages."""
        self.children = list(getattr(trainer.strategy.launcher, "procs", ())) or self.children
        return self.children

    def _finish(self, stage: str, bundle: Bundle, record: dict[str, Any]) -> Bundle:
        folder, is_split = self.folder.bundle(stage), self._is_split
        whole = gathered(bundle) if is_split else bundle
        if main_process():
            whole.save(folder)
        self.folder.finish(stage, record)
        if main_process():
            write_report(self.folder.path, self.recipe.to_dict(), self.folder.records)
        return self._left_by(stage) if is_split else bundle

    def _loader(self, index: int, stage: Stage, processor: Processor, rank: int, world: int, pin: bool) -> WindowLoader:
        self.loader = WindowLoader(
            stage_samples(stage, [self.recipe.seed, index]),
            stage_batches(stage, processor),
            batch_size=stage.batch_size,
            steps=stage.steps,
            accumulate=stage.accumulate,
            rank=rank,
            world=world,
            num_workers=stage.num_workers,
            pin_memory=pin,
            bad_samples=stage.bad_samples,
        )
        return self.loader


def run_identity(recipe: Recipe) -> dict[str, Any]:
    """What a resumed run must have in common with the interrupted one; where and how fast it runs may differ.

    How a step's samples are divided into batches is no part of it: their number is compared when a checkpoint is read.
    """
    tree = recipe.to_dict()
    stages = [{key: value for key, value in stage.items() if key not in ELASTIC} for stage in tree["stages"]]
    return {key: tree[key] for key in ("seed", "chat", "max_length", "model", "tokens")} | {"stages": stages}


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


def _print(thing: Any) -> None:
    from rich.console import Console

    Console().print(thing)
