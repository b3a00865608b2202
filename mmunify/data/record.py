"""One record of a conversation file -> Sample: the format of LLaVA and GroundingGPT, with outputs added.

    {"id": "7", "image": "7.png",                              one path, or a list in the order of the placeholders
     "conversations": [{"from": "human", "value": "<image>\\nDraw it in red."},
                       {"from": "gpt", "value": "Sure. <img>"}],
     "outputs": [{"kind": "image", "target": "7-red.png", "call": "<edit>...</edit>", "condition": 0}],
     "task": "edit", "source": "mine", "facts": {...}}

`<image>`, `<video>` and `<audio>` stand for media, `<img>`, `<vid>`, `<aud>`, `<mask>` and `<at>` (a box) for outputs.
The target of a mask is a picture of it, that of a box `[x0, y0, x1, y1]` in 0..1; with a `label`, the box is written
where no head makes it. Where several nodes learn from one output, `target` holds one for each, by name. One line break
beside a medium only separates it from the words: templates decide what stands there.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmunify.errors import DataError
from mmunify.tokens import parse_reply
from mmunify.types import Media, Output, Region, Role, Sample, TaskCall, Text, Turn

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
MEDIA = {"image": "image", "video": "video", "audio": "audio", "sound": "audio"}
"""Key of a record, and name of its placeholder -> kind of medium."""

OUTPUTS = {"img": "image", "vid": "video", "aud": "audio", "mask": "mask", "at": "box"}
"""Name of a placeholder -> kind of output."""

PLACEHOLDER = re.compile("<(" + "|".join([*MEDIA, *OUTPUTS]) + ")>")


class RecordReader:
    """Reads one record.

    Args:
        record: the parsed JSON.
        root: folder that relative paths start from.
        place: "FILE, line 3", for messages.

    Raises:
        DataError: the record isn't an object; the message names the place.
    """

    def __init__(self, record: Any, root: Path, place: str) -> None:
        if not isinstance(record, Mapping):
            raise DataError(f"{place}: a record must be a JSON object; got {_short(record)}")
        self.record, self.root, self.place = record, root, place
        self.media = {key: self._paths(key) for key in MEDIA if key in record}
        self.outputs = list(record.get("outputs", []))

    def read(self, name: str, source: str) -> Sample:
        """The sample.

        Args:
            name: id for a record that has none.
            source: source for a record that names none.

        Raises:
            DataError: conversations are missing or don't alternate, or placeholders and media don't match.
        """
        turns = tuple(self._turn(entry) for entry in self._entries())
        self._check_order(turns)
        left = {**self.media, "outputs": self.outputs}
        for key, unused in left.items():
            if unused:
                raise self._error(f"{key} holds {len(unused)} more than there are placeholders: {_short(unused)}")
        record = self.record
        return Sample(
            turns=turns,
            id=str(record.get("id", name)),
            task=str(record.get("task", "")),
            source=str(record.get("source", source)),
            facts=dict(record.get("facts", {})),
        )

    def _error(self, message: str) -> DataError:
        return DataError(f"{self.place}: {message}")

    def _paths(self, key: str) -> list[str]:
        given = self.record[key]
        paths = given if isinstance(given, list) else [given]
        if not all(isinstance(path, str) and path for path in paths):
            raise self._error(f"{key} must be a path or a list of paths; got {_short(given)}")
        return list(paths)

    def _entries(self) -> list[Any]:
        entries = self.record.get("conversations")
        if not isinstance(entries, list) or not entries:
            known = ", ".join(map(str, self.record))
            raise self._error(f"conversations must be a list of turns; got {_short(entries)} (keys: {known})")
        return entries

    def _turn(self, entry: Any) -> Turn:
        speaker = entry.get("from") if isinstance(entry, Mapping) else None
        if speaker not in ROLES or not isinstance(entry.get("value"), str):
            raise self._error(f"a turn needs from ({', '.join(ROLES)}) and value (a string); got {_short(entry)}")
        parts = tuple(self._parts(entry["value"]))
        if not parts:
            raise self._error(f"the turn of {speaker!r} is empty; leave it out or say something")
        return Turn(role=ROLES[speaker], parts=parts)

    def _parts(self, value: str) -> Iterator[Text | Media | Output]:
        # split with one group: words, name, words, name, ..., words
        pieces = PLACEHOLDER.split(value)
        for index, piece in enumerate(pieces):
            if index % 2:
                yield self._medium(piece) if piece in MEDIA else self._output(piece)
                continue
            if index and pieces[index - 1] in MEDIA:
                piece = piece.removeprefix("\n")
            if index + 1 < len(pieces) and pieces[index + 1] in MEDIA:
                piece = piece.removesuffix("\n")
            if piece:
                yield Text(text=piece)

    def _medium(self, key: str) -> Media:
        if not self.media.get(key):
            raise self._error(f"the conversation has more <{key}> placeholders than {key} has paths")
        return Media(kind=MEDIA[key], source=str(self.root / self.media[key].pop(0)))

    def _output(self, name: str) -> Output:
        given = self.outputs.pop(0) if self.outputs else None
        kind = OUTPUTS[name]
        if not isinstance(given, Mapping) or given.get("kind", kind) != kind:
            raise self._error(f"<{name}> needs an entry of kind {kind!r} in outputs; got {_short(given)}")
        target, label = self._target(given.get("target")), given.get("label")
        boxed = isinstance(label, str) and isinstance(target, tuple)
        return Output(
            kind=kind,
            target=target,
            call=self._call(given.get("call")),
            region=Region(box=target, label=str(label)) if boxed else None,
            condition=given.get("condition"),
        )

    def _target(self, given: Any) -> Any:
        """Paths start from the root; a box is its numbers; several nodes have one target each."""
        if isinstance(given, Mapping):
            return {str(node): self._target(each) for node, each in given.items()}
        if isinstance(given, list):
            if len(given) != 4 or not all(isinstance(number, int | float) for number in given):
                raise self._error(f"the target of a box is [x0, y0, x1, y1] in 0..1; got {_short(given)}")
            return tuple(float(number) for number in given)
        if given is not None and not isinstance(given, str):
            raise self._error(f"a target must be a path or a box; got {_short(given)}")
        return None if given is None else str(self.root / given)

    def _call(self, text: str | None) -> TaskCall | None:
        if text is None:
            return None
        calls = parse_reply(text, policy="strict").calls
        if len(calls) != 1:
            raise self._error(f"call must hold one well-formed task call; got {_short(text)}")
        (call,) = calls
        return TaskCall(task=call.task, instruction=call.instruction, regions=call.regions)

    def _check_order(self, turns: tuple[Turn, ...]) -> None:
        roles = [turn.role for turn in turns]
        spoken = roles[1:] if roles[0] == "system" else roles
        for index, role in enumerate(spoken):
            wanted = ("user", "assistant")[index % 2]
            if role != wanted:
                raise self._error(f"turns must alternate, human first; turn {index + 1} is {role!r}, not {wanted!r}")
        if not spoken:
            raise self._error("conversations hold a system turn and nothing else")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
