"""A sample of a tar: the members with the same key, as a conversation or as a picture with its words."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from mmunify.data.record import PLACEHOLDER, RecordReader
from mmunify.errors import DataError
from mmunify.types import Media, Output, Sample, Text, Turn

PICTURES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True)
class Members:
    """The members of one sample, read when they are asked for.

    Attributes:
        key: of the sample: what its members are called before the first point.
        place: names it in messages.
        source: data set that it came from.
        extensions: of its members: what stands behind the first point.
        read: extension -> bytes.
    """

    key: str
    place: str
    source: str
    extensions: Sequence[str]
    read: Callable[[str], bytes]

    def sample(self, prompt: str, task: str) -> Sample:
        """The sample: `KEY.json` that holds `conversations` is a record, anything else a pair.

        Args:
            prompt: what the user asks in a pair; "" = nothing.
            task: of pairs.

        Raises:
            DataError: neither, or members that are missing or damaged.
        """
        record = self.json()
        if "conversations" in record:
            return self._conversation(record)
        words = self.text("txt") if "txt" in self.extensions else record.get("caption")
        pictures = self.pictures()
        if not isinstance(words, str) or not words.strip() or not pictures:
            raise DataError(
                f"{self.place}: a pair has a picture ({', '.join(PICTURES)}) and words (.txt, or caption in .json); "
                f"this one has {', '.join(self.extensions)}"
            )
        return self.pair(pictures, prompt, words, task)

    def pair(self, pictures: Sequence[str], asked: str, answer: str, task: str) -> Sample:
        """Pictures, by the names of their members, a question and its answer."""
        shown = tuple(Media(kind="image", source=self._picture(name)) for name in pictures)
        words = (Text(text=asked),) if asked else ()
        turns = (Turn(role="user", parts=(*shown, *words)), Turn(role="assistant", parts=(Text(text=answer.strip()),)))
        return Sample(turns=turns, id=self.key, task=task, source=self.source)

    def json(self) -> Mapping[str, Any]:
        """What `KEY.json` holds; empty without it."""
        try:
            record = json.loads(self.read("json")) if "json" in self.extensions else {}
        except ValueError as error:  # bad JSON or bad UTF-8
            raise DataError(f"{self.place}.json: not JSON: {error}") from error
        if not isinstance(record, Mapping):
            raise DataError(f"{self.place}.json: must hold a JSON object, not a {type(record).__name__}")
        return record

    def text(self, extension: str) -> str:
        """A member as words."""
        return self.read(extension).decode("utf-8", "replace")

    def pictures(self) -> list[str]:
        """Extensions of the members that are pictures."""
        return [extension for extension in self.extensions if extension.rpartition(".")[2].lower() in PICTURES]

    def _conversation(self, record: Mapping[str, Any]) -> Sample:
        shown = "image" in record or not PLACEHOLDER.search(json.dumps(record["conversations"]))
        whole = record if shown else {**record, "image": self.pictures()}
        sample = RecordReader(whole, Path(), self.place).read(name=self.key, source=self.source)
        return replace(sample, turns=tuple(self._filled(turn) for turn in sample.turns))

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
        if extension not in self.extensions:
            raise DataError(f"{self.place}: no member {name!r}; the sample has {', '.join(self.extensions)}")
        try:
            return Image.open(BytesIO(self.read(extension)))
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on bytes that they don't expect
            raise DataError(f"{self.place}.{extension} cannot be read as a picture: {error}") from error
