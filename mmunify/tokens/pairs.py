"""The strings: which special tokens a model has. Everything is an open/close pair `<name>` `</name>`, but the slot."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from mmunify.errors import TokenError
from mmunify.faults import did_you_mean
from mmunify.tokens.locations import location_strings

SLOT = "slot"
OUTPUT_NAMES = {"image": "img", "video": "vid", "audio": "aud"}
NEW_PICTURE_TASKS = frozenset({"layout_to_image"})
GROUNDED_TASKS = frozenset({"segment", "remove", "recolor", "replace", "layout_to_image"})
DIGIT_TASKS = ("segment", "edit", "remove", "recolor", "replace", "layout_to_image", "generate_image")

TAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class TokenRegistry:
    """The special tokens of one model, all in open/close pairs `<name>` `</name>`.

    Args:
        tasks: names of the tasks whose calls the model writes.
        grounding: name of the grounding pair.
        kinds: kinds of media; "image" gives the input pair `<image>` and the output pair `<img>`.
        grounded: tasks whose calls need at least one region; those that are not in `tasks` don't matter.
        new_picture: tasks whose regions lie in the picture to be made, so that no padding of an input matters.
        max_boxes: most boxes of one call (GLIGEN takes 30).
        bins: 0 = coordinates are decimals, `[0.125,0.250,0.500,0.750]`; above 0 = SEED-X's format (published: 224), one
            token per coordinate: `<box_start><loc-112><loc-56><loc-28><loc-28><box_end>`, see `locations.py`.
        signals: further strings that heads write and read (`[SEG]`, `[IMG0]`, `<p>`); the model fills them in.

    Raises:
        TokenError: a name that cannot be a tag, or that is used twice, or bins below 0.
    """

    tasks: Sequence[str] = ()
    grounding: str = "box"
    kinds: Sequence[str] = ("image",)
    grounded: Collection[str] = GROUNDED_TASKS
    new_picture: Collection[str] = NEW_PICTURE_TASKS
    max_boxes: int = 30
    bins: int = 0
    signals: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.bins < 0:
            raise TokenError(f"bins counts the location tokens of a coordinate, 0 for decimals; got {self.bins}")
        for name in ("tasks", "kinds", "signals"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("grounded", "new_picture"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))
        names = [SLOT, *self._media_names(), *self._output_names(), self.grounding, *self.tasks]
        for name in names:
            if not TAG_NAME.fullmatch(name):
                raise TokenError(
                    f"{name!r} cannot be a tag: letters, digits and _ are allowed, a letter first, 64 at most"
                )
            if names.count(name) > 1:
                raise TokenError(f"the tag <{name}> is taken twice, among tasks, grounding and media: {names}")

    def groups(self) -> dict[str, list[str]]:
        """All strings that a tokenizer needs, by group; every string is in exactly one group."""
        return {
            "media": [f"<{SLOT}>", *_tags(self._media_names())],
            "outputs": _tags(self._output_names()),
            "tasks": _tags(self.task_names),
            "grounding": [*_tags((self.grounding,)), *location_strings(self.bins)],
            **({"signals": list(self.signals)} if self.signals else {}),
        }

    def with_signals(self, strings: Iterable[str]) -> "TokenRegistry":
        """The same registry with further strings of heads; those that it has already are left out."""
        known = {string for group in self.groups().values() for string in group}
        new = [string for string in dict.fromkeys(strings) if string not in known]
        return replace(self, signals=(*self.signals, *new)) if new else self

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their indices."""
        return tuple(self.tasks)

    @property
    def slot(self) -> str:
        """The string whose id stands at every slot position."""
        return f"<{SLOT}>"

    def pair(self, name: str) -> tuple[str, str]:
        """Opening and closing string of a task, the grounding, an input kind or an output name ("img").

        Raises:
            TokenError: no such pair.
        """
        known = [*self.tasks, self.grounding, *self._media_names(), *self._output_names()]
        if name not in known:
            raise TokenError(f"no token pair named {name!r}{did_you_mean(name, known)} Known: {', '.join(known)}")
        return f"<{name}>", f"</{name}>"

    def output_pair(self, kind: str) -> tuple[str, str]:
        """Strings around the output slots of a kind of medium: `<img>`, `</img>` for "image"."""
        return self.pair(_output_name(kind))

    def task_index(self, name: str) -> int:
        """Row of a task in the task table: 1 for the first one; 0 for samples without a task of the registry."""
        return self.task_names.index(name) + 1 if name in self.tasks else 0

    def requires_regions(self, task: str) -> bool:
        """Whether a call of this task is incomplete without a grounding pair."""
        return task in self.grounded

    def frame_of(self, task: str, extent: tuple[int, int] | None) -> tuple[int, int] | None:
        """The extent whose padding the boxes of a call are written with; None = they are not padded."""
        return None if task in self.new_picture else extent

    def is_media(self, name: str) -> bool:
        """Whether `<name>` is a media string (input, output or slot), or a string of a head."""
        media = (SLOT, *self._media_names(), *self._output_names())
        return name in media or not {f"<{name}>", f"</{name}>"}.isdisjoint(self.signals)

    def _media_names(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    def _output_names(self) -> tuple[str, ...]:
        return tuple(_output_name(kind) for kind in self.kinds)


def _output_name(kind: str) -> str:
    return OUTPUT_NAMES.get(kind, f"out_{kind}")


def _tags(names: Sequence[str]) -> list[str]:
    return [tag for name in names for tag in (f"<{name}>", f"</{name}>")]


DEFAULT_TOKENS = TokenRegistry(tasks=DIGIT_TASKS, kinds=("image", "video", "audio"))
"""All tasks of the digit world and all kinds of media: what `format_*` and `parse_reply` use without a registry."""
