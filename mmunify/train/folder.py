"""The folder of a run: what is finished, where the interrupted stage left off, and what each stage recorded."""

import json
import os
from pathlib import Path
from typing import Any

from mmunify.checkpoint.swap import recover, remove
from mmunify.errors import UserError

STATE_FILE = "run.json"
FOLDER_VARIABLE = "MMUNIFY_RUN_FOLDER"

MAX_LISTED = 20
"""Differences between two recipes that a message lists."""
_ABSENT = "(absent)"


def main_process() -> bool:
    """Whether this process is the first of a run's; the others stay silent and write nothing."""
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank == 0


class RunFolder:
    """`runs/<name>/`: `run.json`, a bundle per finished stage, `<stage>.ckpt` of the interrupted one, `logs/`.

    Args:
        path: of the folder.
        identity: what a resumed run must have in common with the interrupted one, as plain data.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity
        self.records: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(cls, out: str | Path | None, name: str, identity: dict[str, Any], resume: bool) -> "RunFolder":
        """A new folder, or the one to go on in.

        Args:
            out: the folder; None = `runs/<name>`, with a number behind it when that one is taken.
            name: of the recipe.
            identity: see the class.
            resume: whether to go on with what lies there; without anything there, the run starts.

        Raises:
            UserError: the folder holds a run and `resume` is off, or a run of another recipe.
        """
        if not main_process():  # the launcher started this process beside the first one, which has chosen
            out = os.environ.get(FOLDER_VARIABLE, out)
        path = Path(out) if out is not None else _default_folder(Path("runs") / (name or "run"), resume)
        folder = cls(path.expanduser().absolute(), json.loads(json.dumps(identity)))
        if folder._file.exists():
            folder._take_over(resume)
        if main_process():
            os.environ[FOLDER_VARIABLE] = str(folder.path)
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._write()
        return folder

    @property
    def _file(self) -> Path:
        return self.path / STATE_FILE

    def is_finished(self, stage: str) -> bool:
        """Whether a stage needs no more work."""
        return stage in self.records

    def bundle(self, stage: str) -> Path:
        """Folder of a finished stage's bundle."""
        return self.path / stage

    def checkpoint(self, stage: str) -> Path:
        """An interrupted stage's state: a file, or a folder where several processes each wrote a part."""
        path = self.path / f"{stage}.ckpt"
        if main_process():
            recover(path)
        return path

    def finish(self, stage: str, record: dict[str, Any]) -> None:
        """Note that a stage is done and its bundle written; its checkpoint is no longer needed."""
        self.records[stage] = record
        if main_process():
            self._write()
            remove(self.checkpoint(stage))

    def _take_over(self, resume: bool) -> None:
        if main_process() and not resume:
            raise UserError(f"{self.path} already holds a run; go on with it (--resume), or choose another folder")
        state = json.loads(self._file.read_text())
        different = differences(state["identity"], self.identity)
        if different and resume:
            listed = "\n".join(f"  {line}" for line in different[:MAX_LISTED])
            more = f"\n  and {len(different) - MAX_LISTED} more" if len(different) > MAX_LISTED else ""
            raise UserError(
                f"the run in {self.path} was started with another recipe, so it can't be resumed with this one; start "
                f"anew in another folder, or take these back (then -> now):\n{listed}{more}"
            )
        self.records = state["stages"]

    def _write(self) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps({"identity": self.identity, "stages": self.records}, indent=1))
        os.replace(aside, self._file)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What differs between two trees of plain data: "stages.0.steps: 6 -> 7", one line per value."""
    before, after = _entries(old), _entries(new)
    if before is None or after is None or type(old) is not type(new):
        return [] if old == new else [f"{path}: {_shown(old)} -> {_shown(new)}"]
    prefix = f"{path}." if path else ""
    pairs = [(key, before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in before | after]
    return [line for key, a, b in pairs for line in differences(a, b, prefix + key)]


def _entries(tree: Any) -> dict[str, Any] | None:
    """What lies in a mapping or a list, by name; None = it is neither."""
    if isinstance(tree, dict):
        return {str(key): value for key, value in tree.items()}
    return {str(place): value for place, value in enumerate(tree)} if isinstance(tree, list) else None


def _shown(value: Any) -> str:
    return str(value) if value is _ABSENT else json.dumps(value)


def _default_folder(base: Path, resume: bool) -> Path:
    """`runs/x`, `runs/x-2`, ...: the first that is free, or the last that is taken when resuming."""
    taken, number, path = None, 1, base
    while (path / STATE_FILE).exists():
        taken, number = path, number + 1
        path = base.with_name(f"{base.name}-{number}")
    return taken if resume and taken is not None else path
