"""WebDataset's tar files (https://github.com/webdataset/webdataset), read by number instead of as a stream."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmunify.data.members import Members
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Sample

NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]+)")
"""Name of a member: the key of its sample up to the first point, then its extension."""


@DATASETS.register("webdataset")
class WebDataset:
    """Samples of one or several tar files: the members `KEY.EXTENSION` with the same key.

    A sample with `KEY.json` that holds `conversations` is a record as in `jsonl`; its media are members of the sample,
    by extension ("jpg") or by name ("0001.jpg"), or all of its pictures in order where it names none. Any other sample
    is a pair: its pictures, and the words of `KEY.txt` (or `caption` in `KEY.json`) as the answer.

    When the data set is built, the tars' headers are read once for where members lie; a member is read when its sample
    is asked for. The tars can't be compressed.

    Args:
        path: a tar, several, or a folder with tars, which are taken in the order of their names.
        prompt: what the user asks in a pair; "" = shows the picture and says nothing.
        task: of pairs.

    Raises:
        DataError: no tar there, or one that is damaged, compressed or without samples.
    """

    def __init__(
        self, path: str | list[str], prompt: str = "Describe the image briefly.", task: str = "caption"
    ) -> None:
        self.shards = [_Shard(file) for file in _find_tars([path] if isinstance(path, str) else path)]
        self.prompt, self.task = prompt, task
        self._ends = np.cumsum([len(shard.keys) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside the tars.
            DataError: the sample cannot be used; the message names tar and key.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of tar files with {len(self)} samples")
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self.shards[number]
        return shard.members_of(index - int(self._ends[number]) + len(shard.keys)).sample(self.prompt, self.task)


class _Shard:
    """Where the members of one tar lie: arrays, not objects, as there may be millions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[str] = []
        self.extensions: list[str] = []
        numbers: dict[str, int] = {}
        kinds: dict[str, int] = {}
        rows: list[tuple[int, int, int, int]] = []
        for key, extension, offset, size in _scan(path):
            owner = numbers.setdefault(key, len(numbers))
            rows.append((owner, kinds.setdefault(extension, len(kinds)), offset, size))
        self.keys, self.extensions = list(numbers), list(kinds)
        if not rows:
            raise DataError(f"{path} holds no sample: no member is called KEY.EXTENSION")
        members = np.asarray(rows, dtype=np.int64)
        self.members = members[np.argsort(members[:, 0], kind="stable")]
        self.starts = np.searchsorted(self.members[:, 0], np.arange(len(self.keys) + 1))

    def members_of(self, row: int) -> Members:
        """The members of a sample."""
        found = self.members[self.starts[row] : self.starts[row + 1], 1:].tolist()
        places = {self.extensions[kind]: (offset, size) for kind, offset, size in found}
        key = self.keys[row]
        return Members(
            key=key,
            place=f"{self.path}, {key}",
            source=self.path.stem,
            extensions=list(places),
            read=lambda extension: self._read(key, extension, *places[extension]),
        )

    def _read(self, key: str, extension: str, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                found = file.read(size)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from error
        if len(found) < size:
            raise DataError(f"{self.path}, {key}.{extension}: {len(found)} of {size} bytes; {self.path} is cut off")
        return found


def _scan(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """(key, extension, offset, size) of the members of a tar, in order."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                named = NAME.fullmatch(member.name) if member.isfile() else None
                if named is not None:
                    yield named[1], named[2], member.offset_data, member.size
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an uncompressed tar: {error}") from error


def _find_tars(paths: list[str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"tar file {path} does not exist")
        inside = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"folder {path} holds no .tar file")
        found += inside
    if not found:
        raise DataError("path is empty: give a tar, several, or a folder of them")
    return found
