"""Text -> calls, regions, words and problems. First the tags are paired in one pass, then the pairs are read."""

import itertools
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmunify.errors import TokenError
from mmunify.tokens.entities import unescape
from mmunify.tokens.frames import Extent, clip, unpad_box
from mmunify.tokens.locations import BOXES, CLOSES, corners, read_numbers
from mmunify.tokens.pairs import DEFAULT_TOKENS, TokenRegistry
from mmunify.tokens.scanning import Pair, Problem, Scanner, is_gap
from mmunify.types import Box, Region, TaskCall

POLICIES = ("strict", "repair", "text_only")

_BRACKETS = re.compile(r"\[([^\[\]]*)(?:\]|\Z|(?=\[))")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """A reply, read.

    Attributes:
        calls: in the order of the reply, with their regions and spans.
        regions: of grounding pairs that belong to no call.
        text: the words alone: no calls, no tags, labels of `regions` kept.
        problems: in the order of the reply.
    """

    calls: tuple[TaskCall, ...] = ()
    regions: tuple[Region, ...] = ()
    text: str = ""
    problems: tuple[Problem, ...] = ()


def parse_reply(
    text: str, policy: str = "repair", extent: Extent | None = None, registry: TokenRegistry | None = None
) -> ParsedReply:
    """Read the calls, regions and words of a reply, in linear time; no string makes it raise.

    Args:
        text: what the model wrote.
        policy: "repair" mends what it can (closes tags, swaps and clips boxes) and keeps what is left whole;
            "strict" drops every call and every grounding pair that has a problem; "text_only" keeps no call.
        extent: (width, height) of the image, to un-pad coordinates of its padded square.
        registry: whose tokens to read; tags that it doesn't know are problems.

    Raises:
        TokenError: an unknown policy.
    """
    if policy not in POLICIES:
        raise TokenError(f"unknown policy {policy!r}; choose one of {', '.join(POLICIES)}")
    tokens = registry or DEFAULT_TOKENS
    scanner = Scanner(text, tokens)
    scanner.run()
    drafts, edits = _assemble(text, scanner.pairs, tokens, extent)
    for draft in drafts:
        draft.complete(tokens)
    strays = sorted(problem.span[0] for problem in scanner.problems)
    kept = [draft for draft in drafts if draft.is_kept(policy, strays)]
    problems = [*scanner.problems, *itertools.chain.from_iterable(draft.problems for draft in drafts)]
    return ParsedReply(
        calls=tuple(draft.call() for draft in kept if draft.task),
        regions=tuple(itertools.chain.from_iterable(draft.regions for draft in kept if not draft.task)),
        text=_tidy("".join(_apply_edits(text, sorted(edits + scanner.markup)))),
        problems=tuple(sorted(problems, key=lambda problem: problem.span)),
    )


@dataclass
class _Draft:
    """A call on its way, or (task "") a grounding pair of its own."""

    task: str
    instruction: str
    start: int
    end: int
    regions: list[Region] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def lacks_regions(self, tokens: TokenRegistry) -> bool:
        return tokens.requires_regions(self.task) and not self.regions

    def ground(self, inner: str, pair: Pair, extent: Extent | None, bins: int) -> str:
        """Take the regions of a grounding pair in; returns the pair's words."""
        regions, problems, words = _read_regions(inner, pair.inner, extent, bins)
        self.regions += regions
        self.problems += pair.own + problems
        return words

    def complete(self, tokens: TokenRegistry) -> None:
        """Find what only shows once all grounding pairs are known."""
        if self.task and not self.instruction.strip():
            self._report("empty_payload", f"<{self.task}> says nothing")
            labels = dict.fromkeys(region.label for region in self.regions)
            self.instruction = " and ".join(filter(None, labels))
        if self.lacks_regions(tokens):
            self._report("missing_grounding", f"<{self.task}> needs a <{tokens.grounding}> pair and has none")
        if len(self.regions) > tokens.max_boxes:
            self._report("too_many_boxes", f"{len(self.regions)} boxes, the first {tokens.max_boxes} are kept")
            self.regions = self.regions[: tokens.max_boxes]

    def _report(self, code: str, message: str) -> None:
        self.problems.append(Problem(code, message, (self.start, self.end)))

    def is_kept(self, policy: str, strays: Sequence[int]) -> bool:
        """Whether a policy keeps it; `strays`: where tags stand that belong to no pair, in order."""
        if self.task and policy == "text_only":
            return False
        if policy == "strict":
            first = bisect_left(strays, self.start)
            return not self.problems and not any(place < self.end for place in strays[first : first + 1])
        return bool(self.instruction.strip() or self.regions)

    def call(self) -> TaskCall:
        span = (self.start, self.end)
        return TaskCall(task=self.task, instruction=self.instruction, regions=tuple(self.regions), span=span)


def _assemble(
    text: str, pairs: Sequence[Pair], tokens: TokenRegistry, extent: Extent | None
) -> tuple[list[_Draft], list[tuple[int, int, str]]]:
    """Drafts in order, and the edits (start, end, replacement) that leave the words alone.

    A grounding pair belongs to the call before it if nothing but space and commas stands between them, or if that
    call needs a region and still has none.
    """
    drafts: list[_Draft] = []
    edits: list[tuple[int, int, str]] = []
    call = _Draft("", "", 0, 0)
    is_next, end = False, 0
    for pair in pairs:
        inner = text[pair.inner : pair.inner_end]
        is_next = is_next and is_gap(text[end : pair.start])
        end = pair.end
        if pair.name != tokens.grounding:
            call = _Draft(pair.name, unescape(inner), pair.start, pair.end, problems=pair.own)
            drafts.append(call)
            edits.append((pair.start, pair.end, ""))
            is_next = True
            continue
        if not is_next and not call.lacks_regions(tokens):
            call = _Draft("", "", pair.start, pair.end)
            drafts.append(call)
        words = call.ground(inner, pair, tokens.frame_of(call.task, extent), tokens.bins)
        call.end = pair.end if is_next else call.end
        edits.append((pair.start, pair.end, "" if is_next else words))
    return drafts, edits


def _read_regions(inner: str, offset: int, extent: Extent | None, bins: int) -> tuple[list[Region], list[Problem], str]:
    """Regions, problems and words of a grounding pair. A box has the label that stands last before it."""
    regions, problems, words, label, at = [], [], [], "", 0
    boxes = list((BOXES if bins else _BRACKETS).finditer(inner))
    for found in boxes:
        label = unescape(inner[at : found.start()]) or label
        words.append(unescape(inner[at : found.start()]))
        at = found.end()
        box, faults = _read_box(found[1], extent, bins)
        span = (offset + found.start(), offset + found.end())
        problems += [Problem(code, f"{message} in [{found[1][:80]}]", span) for code, message in faults]
        if not found[0].endswith(("]", CLOSES)):
            problems.append(Problem("unclosed", f"the bracket of [{found[1][:80]} is not closed", span))
        if box is not None:
            regions.append(Region(box=box, label=label))
    words.append(unescape(inner[at:]))
    if not boxes:
        span = (offset if inner else offset - 1, offset + len(inner))  # an empty pair has only its tag
        problems.append(Problem("bad_number_count", f"no box in {inner[:80]!r}", span))
    return regions, problems, " ".join(filter(None, words))


Faults = list[tuple[str, str]]
"""(code, message) pairs."""


def _read_box(inner: str, extent: Extent | None, bins: int) -> tuple[Box | None, Faults]:
    """The mended box, or None when it can't be mended, with its faults."""
    numbers, faults = _read_locations(inner, bins) if bins else _read_decimals(inner)
    if numbers is None:
        return None, faults
    box, mended = _mend_box(numbers)
    faults = [*faults, *mended]
    box = unpad_box(box, extent) if extent else box
    if _has_area(box):
        return box, faults
    return None, faults or [("out_of_range", "the box lies outside the picture")]


def _read_decimals(inner: str) -> tuple[Box | None, Faults]:
    words = [word.strip() for word in inner.split(",")]
    if len(words) != 4:
        return None, [("bad_number_count", f"{len(words)} numbers instead of 4")]
    bad = next(itertools.filterfalse(_NUMBER.fullmatch, words), None)
    if bad is not None:
        return None, [("bad_number", f"{bad[:20]!r} is no decimal number")]
    x0, y0, x1, y1 = map(float, words)
    return (x0, y0, x1, y1), []


def _read_locations(inner: str, bins: int) -> tuple[Box | None, Faults]:
    numbers, rest = read_numbers(inner)
    if len(numbers) != 4:
        return None, [("bad_number_count", f"{len(numbers)} location tokens instead of 4")]
    faults = [("bad_number", f"{rest[:20]!r} is no location token")] if rest else []
    x0, y0, x1, y1 = corners(numbers, bins)
    if max(numbers) >= bins or max(-x0, -y0, x1 - 1, y1 - 1) > 1 / bins:  # half a bin is rounding
        faults.append(("out_of_range", f"a box outside the picture, of locations 0..{bins - 1}"))
    return (clip(x0), clip(y0), clip(x1), clip(y1)), faults


def _mend_box(numbers: tuple[float, ...]) -> tuple[Box, Faults]:
    """Clip to 0..1 and put the corners in order."""
    x0, y0, x1, y1 = map(clip, numbers)
    faults = [] if (x0, y0, x1, y1) == numbers else [("out_of_range", "a number outside 0..1")]
    if not _has_area((x0, y0, x1, y1)):
        faults.append(("inverted_box", "x0 < x1 and y0 < y1 don't hold"))
    return (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), faults


def _has_area(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _apply_edits(text: str, edits: Sequence[tuple[int, int, str]]) -> Iterator[str]:
    at = 0
    for start, end, words in edits:
        yield text[at:start]
        yield words
        at = max(at, end)
    yield text[at:]


def _tidy(text: str) -> str:
    """White space as in ordinary prose: single, none before a comma or a full stop, no blank ends."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    return re.sub(r" (?=[,.;:!?])", "", text).strip()
