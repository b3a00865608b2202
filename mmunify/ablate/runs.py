"""The runs behind the cells: a stage that several cells need is trained once, and taken from other runs if given."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmunify.ablate.plan import Cell
from mmunify.checkpoint import Bundle, load_bundle
from mmunify.errors import TrainingError, UserError
from mmunify.recipe import Recipe
from mmunify.train.folder import FOLDER_VARIABLE, STATE_FILE, RunFolder, main_process
from mmunify.train.stages import run_identity, train


class Runs:
    """One run folder per step, named by its key. Each starts where the folder of the step before it ended.

    Args:
        folder: of all of them.
        others: folders of finished runs: their stages are taken over where recipe and seed are the same.
        progress: whether training shows tables and bars.

    Raises:
        UserError: one of the others is no run.
    """

    def __init__(self, folder: Path, others: Sequence[str | Path] = (), progress: bool = True) -> None:
        self.folder, self.progress = folder, progress
        self.others = [Path(other).expanduser().absolute() for other in others]
        for other in self.others:
            if not (other / STATE_FILE).is_file():
                raise UserError(f"no run in {other}: it has no {STATE_FILE}")
        self._failed: dict[str, str] = {}

    def path(self, cell: Cell, depth: int = -1) -> Path:
        """Folder of the run of a cell's step."""
        return self.folder / cell.steps[depth].folder

    def reach(self, cell: Cell) -> Bundle:
        """Train what a cell still lacks; its bundle.

        Raises:
            TrainingError: a step has failed for another cell already; it is not tried twice.
            Exception: whatever training raises.
        """
        for depth, step in enumerate(cell.steps):
            if step.key in self._failed:
                raise TrainingError(f"stage {step.stage!r}, shared with another cell, failed: {self._failed[step.key]}")
            try:
                self._take(cell, depth)
            except Exception as error:
                self._failed[step.key] = f"{type(error).__name__}: {error}"
                raise
        return load_bundle(self.path(cell) / cell.steps[-1].stage, allow_imports=True)

    def records(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """What the stages that the cell's own seed reaches recorded, by name."""
        stages = json.loads((self.path(cell) / STATE_FILE).read_text())["stages"]
        return {step.stage: stages[step.stage] for step in cell.steps if step.varies}

    def _take(self, cell: Cell, depth: int) -> None:
        """Take one step, unless its run is there already."""
        folder, recipe = self.path(cell, depth), cell.until(depth)
        if _finished(folder, cell.steps[depth].stage):
            return
        source = next((other for other in self.others if _holds(other, recipe)), None)
        if source is None and depth:
            source = self.path(cell, depth - 1)
        if source is not None and main_process() and not (folder / STATE_FILE).exists():
            _take_over(source, recipe, folder)
        os.environ.pop(FOLDER_VARIABLE, None)  # processes beside the first one were started for an earlier run
        train(recipe, out=folder, resume=True, progress=self.progress)


def _finished(folder: Path, stage: str) -> bool:
    file = folder / STATE_FILE
    return file.is_file() and stage in json.loads(file.read_text())["stages"]


def _holds(run: Path, recipe: Recipe) -> bool:
    """Whether a run has finished exactly the recipe's stages, with its seed."""
    state = json.loads((run / STATE_FILE).read_text())
    theirs, ours = state["identity"], json.loads(json.dumps(run_identity(recipe)))
    same = {**theirs, "stages": theirs["stages"][: len(recipe.stages)]} == ours
    return same and recipe.stages[-1].name in state["stages"]


def _take_over(source: Path, recipe: Recipe, folder: Path) -> None:
    """Start a run behind the finished stages of another one, whose bundles are linked, not copied."""
    records = json.loads((source / STATE_FILE).read_text())["stages"]
    run = RunFolder.open(folder, recipe.name, run_identity(recipe), resume=True)
    for stage in recipe.stages:
        if stage.name in records:
            _link((source / stage.name).resolve(), run.bundle(stage.name))
            run.finish(stage.name, records[stage.name])


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(os.path.relpath(source, target.parent), target, target_is_directory=True)
    except OSError:  # file systems and users that have no links
        shutil.copytree(source, target)
