"""WebDataset's tar files (https://github.com/webdataset/webdataset), read by number instead of as a stream."""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mmunify.data.record import PLACEHOLDER, RecordReader
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Media, Output, Sample, Text, Turn

NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]+)")
"""Name of a member: the key of its sample up to the first point, then its extension."""

PICTURES = ("jpg", "jpeg", "png", "webp")


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
        return _Members(shard, index - int(self._ends[number]) + len(shard.keys)).sample(self.prompt, self.task)


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

    def places(self, row: int) -> dict[str, tuple[int, int]]:
        """Extension -> (offset, size) of the members of a sample."""
        found = self.members[self.starts[row] : self.starts[row + 1], 1:].tolist()
        return {self.extensions[kind]: (offset, size) for kind, offset, size in found}


class _Members:
    """The members of one sample, read when they are asked for."""

    def __init__(self, shard: _Shard, row: int) -> None:
        self.path, self.key, self.places = shard.path, shard.keys[row], shard.places(row)
        self.place = f"{shard.path}, {self.key}"

    def sample(self, prompt: str, task: str) -> Sample:
        record = self._json()
        sample = self._conversation(record) if "conversations" in record else self._pair(record, prompt, task)
        return replace(sample, turns=tuple(self._filled(turn) for turn in sample.turns))

    def _json(self) -> Mapping[str, Any]:
        try:
            record = json.loads(self.read("json")) if "json" in self.places else {}
        except ValueError as error:  # bad JSON or bad UTF-8
            raise DataError(f"{self.place}.json: not JSON: {error}") from error
        if not isinstance(record, Mapping):
            raise DataError(f"{self.place}.json: must hold a JSON object, not a {type(record).__name__}")
        return record

    def _conversation(self, record: Mapping[str, Any]) -> Sample:
        shown = "image" in record or not PLACEHOLDER.search(json.dumps(record["conversations"]))
        whole = record if shown else {**record, "image": self._pictures()}
        return RecordReader(whole, Path(), self.place).read(name=self.key, source=self.path.stem)

    def _pair(self, record: Mapping[str, Any], prompt: str, task: str) -> Sample:
        words = self.read("txt").decode("utf-8", "replace") if "txt" in self.places else record.get("caption")
        pictures = self._pictures()
        if not isinstance(words, str) or not words.strip() or not pictures:
            raise DataError(
                f"{self.place}: a pair has a picture ({', '.join(PICTURES)}) and words (.txt, or caption in .json); "
                f"this one has {', '.join(self.places)}"
            )
        shown = tuple(Media(kind="image", source=name) for name in pictures)
        asked = (Text(text=prompt),) if prompt else ()
        answer = Turn(role="assistant", parts=(Text(text=words.strip()),))
        turns = (Turn(role="user", parts=(*shown, *asked)), answer)
        return Sample(turns=turns, id=self.key, task=task, source=self.path.stem)

    def _pictures(self) -> list[str]:
        return [extension for extension in self.places if extension.rpartition(".")[2].lower() in PICTURES]

    def _filled(self, turn: Turn) -> Turn:
        return replace(turn, parts=tuple(self._with_picture(part) for part in turn.parts))

    def _with_picture(self, part: Text | Media | Output) -> Text | Media | Output:
        if isinstance(part, Media) and part.source is not None:
            return replace(part, source=self._picture(str(part.source)))
        if isinstance(part, Output) and part.target is not None:
            return replace(part, target=self._picture(str(part.target)))
        return part

    def _picture(self, name: str) -> Any:
        """A member as a picture that isn't decoded yet."""
        from PIL import Image

        extension = name.removeprefix(f"{self.key}.").removeprefix(f"{self.key.rpartition('/')[2]}.")
        if extension not in self.places:
            raise DataError(f"{self.place}: no member {name!r}; the sample has {', '.join(self.places)}")
        try:
            return Image.open(BytesIO(self.read(extension)))
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on bytes that they don't expect
            raise DataError(f"{self.place}.{extension} cannot be read as a picture: {error}") from error

    def read(self, extension: str) -> bytes:
        """Bytes of a member."""
        offset, size = self.places[extension]
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                found = file.read(size)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from error
        if len(found) < size:
            raise DataError(f"{self.place}.{extension}: {len(found)} of {size} bytes; {self.path} is cut off")
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
