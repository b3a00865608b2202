"""Samples -> JSON lines and PNG files, which the data set `jsonl` reads back through the ordinary data path."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmunify.data.record import OUTPUTS, PLACEHOLDER
from mmunify.errors import DataError
from mmunify.tokens import format_call
from mmunify.types import Media, Output, Sample, TaskCall, Text, Turn

SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
TAGS = {kind: f"<{name}>" for name, kind in OUTPUTS.items()}
MEDIA_FOLDER = "media"


def write_samples(samples: Iterable[Sample], folder: str | Path, name: str = "data.jsonl") -> Path:
    """Write samples as one JSON-lines file, with their pictures as PNG files beside it.

    Words, media and outputs come back as they were; neighbouring words of one turn come back as one piece. Facts come
    back as plain JSON: pictures and masks as paths, calls as text, scenes as objects.

    Args:
        samples: what to write.
        folder: made if need be; pictures go to its sub-folder `media`.
        name: of the file.

    Returns:
        Path of the file; it appears under its name only when complete.

    Raises:
        DataError: a sample holds something that a record has no place for.
    """
    folder = Path(folder)
    (folder / MEDIA_FOLDER).mkdir(parents=True, exist_ok=True)
    path, aside = folder / name, folder / f"{name}.part"
    with aside.open("w", encoding="utf-8") as file:
        for number, sample in enumerate(samples):
            record = _RecordWriter(sample, folder, f"{path.stem}-{number:06d}").write()
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return aside.replace(path)


class _RecordWriter:
    """Writes one sample's record and pictures.

    Args:
        sample: what to write.
        folder: of the JSON-lines file.
        stem: beginning of the pictures' file names.
    """

    def __init__(self, sample: Sample, folder: Path, stem: str) -> None:
        self.sample, self.folder, self.stem = sample, folder, stem
        self.media: dict[str, list[str]] = {}
        self.outputs: list[dict[str, Any]] = []
        self.num_pictures = 0

    def write(self) -> dict[str, Any]:
        """The record; pictures are saved on the way."""
        sample = self.sample
        turns = [{"from": SPEAKERS[turn.role], "value": self._value(turn)} for turn in sample.turns]
        record: dict[str, Any] = {"id": sample.id}
        record |= {kind: paths[0] if len(paths) == 1 else paths for kind, paths in self.media.items()}
        record["conversations"] = turns
        if self.outputs:
            record["outputs"] = self.outputs
        return record | {"task": sample.task, "source": sample.source, "facts": self._plain(sample.facts)}

    def _value(self, turn: Turn) -> str:
        """The turn's words, with placeholders; a line break keeps a medium apart from words."""
        value, last = "", None
        for part in turn.parts:
            if isinstance(part, Text) and isinstance(last, Media) or isinstance(part, Media) and isinstance(last, Text):
                value += "\n"
            value += self._words(part) if isinstance(part, Text) else self._placeholder(part)
            last = part
        return value

    def _words(self, part: Text) -> str:
        found = PLACEHOLDER.search(part.text)
        if found or part.learned is not None:
            reason = f"the words {found.group()!r}" if found else f"learned={part.learned}"
            raise DataError(f"sample {self.sample.id!r}: a record has no place for {reason}")
        return part.text

    def _placeholder(self, part: Media | Output) -> str:
        if part.codes is not None or isinstance(part, Media) and part.region is not None:
            raise DataError(f"sample {self.sample.id!r}: a record has no place for regions or codes of a medium")
        if isinstance(part, Media):
            self.media.setdefault(part.kind, []).append(self._path(part.source))
            return f"<{part.kind}>"
        if part.kind not in TAGS:
            raise DataError(f"sample {self.sample.id!r}: a record holds outputs of {sorted(TAGS)}, not {part.kind!r}")
        label = None if part.region is None else part.region.label
        entry = {"target": part.target, "call": part.call, "label": label, "condition": part.condition}
        self.outputs.append({"kind": part.kind, **{k: self._plain(v) for k, v in entry.items() if v is not None}})
        return TAGS[part.kind]

    def _path(self, source: Any) -> str:
        """Path of a medium: relative for a picture saved here, absolute for a file."""
        if isinstance(source, np.ndarray):
            return self._save(source)
        if isinstance(source, str | Path):
            return str(Path(source).absolute())
        raise DataError(f"sample {self.sample.id!r}: a medium must be an array or a path, not {type(source).__name__}")

    def _save(self, picture: np.ndarray) -> str:
        from PIL import Image

        if picture.dtype not in (np.uint8, np.bool_) or picture.ndim not in (2, 3):
            shape = f"{picture.dtype} of shape {picture.shape}"
            raise DataError(f"sample {self.sample.id!r}: a picture must be uint8 [H W 3] or bool [H W], not {shape}")
        path = f"{MEDIA_FOLDER}/{self.stem}-{self.num_pictures}.png"
        self.num_pictures += 1
        Image.fromarray(picture).save(self.folder / path)
        return path

    def _plain(self, value: Any) -> Any:
        """A fact as JSON."""
        if isinstance(value, np.ndarray):
            return self._save(value)
        if isinstance(value, TaskCall):
            return format_call(value)
        if is_dataclass(value) and not isinstance(value, type):
            return self._plain(asdict(value))
        if isinstance(value, Mapping):
            return {str(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value
