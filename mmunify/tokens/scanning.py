"""The tags of a reply, paired in one pass, with what is wrong about them."""

import re
from dataclasses import dataclass, field

from mmunify.faults import did_you_mean
from mmunify.tokens.locations import CLOSES, END, LOCATION, OPENS, START
from mmunify.tokens.pairs import TAG_NAME, TokenRegistry

_TAG = re.compile(rf"</?({TAG_NAME.pattern})>")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a reply or with a call.

    Attributes:
        code: of the parser: unclosed, unopened, nested, empty_payload, unknown_task, missing_grounding,
            bad_number_count, bad_number, out_of_range, inverted_box, too_many_boxes; the router has its own.
        message: what was found and what was done about it, for people.
        span: (start, end) characters of the reply.
    """

    code: str
    message: str
    span: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass
class Pair:
    """A tag pair as it stands in the text; `own` are its problems."""

    name: str
    start: int
    inner: int
    inner_end: int = 0
    end: int = 0
    own: list[Problem] = field(default_factory=list)


class Scanner:
    """One pass over the tags. `pairs` holds task and grounding pairs, `markup` edits that remove all other tags."""

    def __init__(self, text: str, tokens: TokenRegistry) -> None:
        self.text, self.tokens = text, tokens
        self.pairs: list[Pair] = []
        self.markup: list[tuple[int, int, str]] = []
        self.problems: list[Problem] = []
        self._open: Pair | None = None
        self._interrupted: dict[str, Pair] = {}
        self._unknown: set[str] = set()

    def run(self) -> None:
        """Fill `pairs`, `markup` and `problems`."""
        self._strip_signals()
        for tag in _TAG.finditer(self.text):
            if self.tokens.bins and tag[1] in (START, END):
                self._locate(tag)
                continue
            closes = tag[0].startswith("</")
            if closes and self._open is not None and self._open.name == tag[1]:
                self._open.inner_end, self._open.end = tag.span()
                self._open = None
                continue
            self._interrupt(tag.start())
            if not self._is_pair(tag[1]):
                self._skip(tag)
            elif closes:
                self._stray(tag)
            else:
                self._open = Pair(tag[1], tag.start(), tag.end())
                self.pairs.append(self._open)
        self._interrupt(len(self.text))

    def _locate(self, tag: re.Match[str]) -> None:
        """A box of location tokens: part of an open grounding pair, or, as SEED-X writes it, one of its own."""
        grounding = self.tokens.grounding
        if self._open is not None and self._open.name == grounding:
            return
        if tag[1] == END:
            if not self.pairs or tag.end() > self.pairs[-1].end:
                self._interrupt(tag.start())
                self._stray(tag)
            return
        self._interrupt(tag.start())
        end = self.text.find(CLOSES, tag.end())
        stop = self.text.find("<", _after_locations(self.text, tag.end())) if end < 0 else end + len(CLOSES)
        stop = stop if stop >= 0 else len(self.text)
        self.pairs.append(Pair(grounding, tag.start(), tag.start(), stop, stop))

    def _strip_signals(self) -> None:
        """Strings of heads that are no tags (`[SEG]`) are no words of the reply; location tokens neither."""
        bare = [re.escape(string) for string in self.tokens.signals if not _TAG.fullmatch(string)]
        patterns = [*bare, *([LOCATION.pattern] if self.tokens.bins else [])]
        if patterns:
            self.markup += [(*found.span(), "") for found in re.finditer("|".join(patterns), self.text)]

    def _is_pair(self, name: str) -> bool:
        return name in self.tokens.tasks or name == self.tokens.grounding

    def _interrupt(self, at: int) -> None:
        """Close the open pair where another tag or the end stands; an open grounding pair ends with its last box."""
        pair, self._open = self._open, None
        if pair is None:
            return
        opens, closes = (OPENS, CLOSES) if self.tokens.bins else ("[", "]")
        last = self.text.rfind(closes, pair.inner, at) if pair.name == self.tokens.grounding else -1
        is_cut = last < 0 or self.text.find(opens, last, at) >= 0
        pair.inner_end = pair.end = at if is_cut else last + len(closes)
        pair.own.append(Problem("unclosed", f"<{pair.name}> is not closed", (pair.start, pair.inner)))
        self._interrupted[pair.name] = pair

    def _stray(self, tag: re.Match[str]) -> None:
        """A closing tag whose pair is not open: the pair was interrupted by another one inside it, or there is none."""
        self.markup.append((*tag.span(), ""))
        pair = self._interrupted.pop(tag[1], None)
        if pair is None:
            self.problems.append(Problem("unopened", f"{tag[0]} closes nothing", tag.span()))
        else:
            pair.own[0] = Problem("nested", f"another tag stands inside <{pair.name}>", (pair.start, tag.end()))

    def _skip(self, tag: re.Match[str]) -> None:
        """Media strings go without a word, unknown tags with one problem per name; their content stays text."""
        self.markup.append((*tag.span(), ""))
        name = tag[1]
        if self.tokens.is_media(name) or name in self._unknown:
            return
        self._unknown.add(name)
        hint = did_you_mean(name, self.tokens.task_names)
        self.problems.append(Problem("unknown_task", f"{tag[0]} is no tag of this model{hint}", tag.span()))


def _after_locations(text: str, at: int) -> int:
    """Where the run of location tokens that begins at `at` ends."""
    while (found := LOCATION.match(text, at)) is not None:
        at = found.end()
    return at


def is_gap(text: str) -> bool:
    """Whether there are no words in what stands between two pairs."""
    return not _TAG.sub("", text).strip(" \t\r\n,;")
