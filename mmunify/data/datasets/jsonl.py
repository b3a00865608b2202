"""Conversation files: JSON lines or one JSON list, as LLaVA, GroundingGPT and `digit_world.writer` write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmunify.data.record import RecordReader
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Sample


@DATASETS.register("jsonl")
class JSONLines:
    """Records of one or several files, in order; see `mmunify.data.record` for their format.

    Of a `.jsonl` file only the line beginnings are kept in memory, and a line is read when its sample is asked for. A
    `.json` file holds one list, which is kept. Media stay paths: the processor opens them.

    Args:
        path: the file, or several.
        root: folder that media paths start from; by default the folder of their file.

    Raises:
        DataError: a file is missing, holds no record, or isn't JSON; no file is given.
    """

    def __init__(self, path: str | list[str], root: str = "") -> None:
        paths = [path] if isinstance(path, str) else list(path)
        if not paths:
            raise DataError("path is empty: give a conversation file, or several")
        self.root = root
        self.files = [_open_file(Path(file)) for file in paths]
        self._ends = np.cumsum([len(file) for file in self.files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside the files.
            DataError: the record cannot be used; the message names file, line and value.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of conversation files with {len(self)} records")
        number = int(np.searchsorted(self._ends, index, side="right"))
        file = self.files[number]
        row = index - int(self._ends[number]) + len(file)
        place = f"{file.path}, {file.noun} {file.number(row)}"
        reader = RecordReader(file.record(row), Path(self.root) if self.root else file.path.parent, place)
        return reader.read(name=f"{file.path.stem}:{file.number(row)}", source=file.path.stem)


class _Lines:
    """A `.jsonl` file: where its lines begin."""

    noun = "line"

    def __init__(self, path: Path) -> None:
        self.path = path
        starts: list[tuple[int, int]] = []
        with path.open("rb") as file:
            start = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    starts.append((start, number))
                start += len(line)
        self._starts = np.asarray(starts, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._starts)

    def number(self, row: int) -> int:
        """Line number of a record, from 1."""
        return int(self._starts[row, 1])

    def record(self, row: int) -> Any:
        """The parsed line."""
        with self.path.open("rb") as file:
            file.seek(int(self._starts[row, 0]))
            return _parse(file.readline(), f"{self.path}, line {self.number(row)}")


class _List:
    """A `.json` file with one list of records."""

    noun = "record"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: Sequence[Any] = _parse(path.read_bytes(), str(path))
        if not isinstance(self._records, list):
            raise DataError(f"{path} must hold a JSON list of records; it holds a {type(self._records).__name__}")

    def __len__(self) -> int:
        return len(self._records)

    def number(self, row: int) -> int:
        """Number of a record, from 1."""
        return row + 1

    def record(self, row: int) -> Any:
        """The record."""
        return self._records[row]


def _parse(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # bad JSON or bad UTF-8
        raise DataError(f"{place}: not JSON: {error}; it begins {text[:60]!r}") from error


def _open_file(path: Path) -> _Lines | _List:
    if not path.is_file():
        raise DataError(f"conversation file {path} does not exist")
    file = _List(path) if path.suffix == ".json" else _Lines(path)
    if not len(file):
        raise DataError(f"conversation file {path} holds no record ({path.stat().st_size} bytes)")
    return file
