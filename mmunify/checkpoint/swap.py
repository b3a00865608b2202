"""A file or a folder takes another's place; a process killed at any moment leaves one of the two behind."""

import os
import shutil
from pathlib import Path


def aside(target: Path) -> Path:
    """Where what will take the place of `target` is written."""
    return target.with_name(f".{target.name}.new")


def put_in_place(target: Path) -> None:
    """Let what lies `aside(target)` take the place of whatever lies at `target`."""
    before = _before(target)
    recover(target)
    remove(before)
    if target.is_dir() or (target.exists() and aside(target).is_dir()):  # a file replaces a file in one step
        os.replace(target, before)
    os.replace(aside(target), target)
    remove(before)


def recover(target: Path) -> None:
    """A process killed between two renames left what was there under its other name: give the name back."""
    if not target.exists() and _before(target).exists():
        os.rename(_before(target), target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _before(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
