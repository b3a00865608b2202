"""Questions about a clip with exactly one right, short answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmunify.data.digit_world.clips import DIRECTIONS, Clip, Plot, make_clip
from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.words import ask, choose, join_words, name_of

CLIP_PHRASES: dict[str, Sequence[str]] = {
    "direction": ("Which way does the {name} move?", "Where does the {name} move to?"),
    "motions": ("Where do the digits move to?", "Which digit moves where?"),
    "mover": ("Which digit moves to the {side}?",),
    "leaves_first": ("Which digit leaves first?", "Which digit leaves the picture first?"),
    "leaves_last": ("Which digit leaves last?", "Which digit leaves the picture last?"),
    "enters_first": ("Which digit enters first?", "Which digit enters the picture first?"),
    "enters_last": ("Which digit enters last?", "Which digit enters the picture last?"),
    "leave_order": ("In which order do the digits leave?",),
    "enter_order": ("In which order do the digits enter?",),
}
"""Kind of question -> how it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipQuestion:
    """A question, its only answer, its kind (a key of `CLIP_PHRASES`), and the digit that it is about, if it is one."""

    text: str
    answer: str
    kind: str
    subject: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What fills the phrases, the answer, and the digit that it is about."""

    answer: str
    words: Mapping[str, str]
    subject: int | None = None


Asker = Callable[[Clip, np.random.Generator], _Found | None]
"""What asks one kind of question; None where the clip leaves no clear answer."""


NAMINGS = ("full", "number", "color")
"""How a question may call a digit: "purple 7", "7", "purple digit"; the short ones where no other digit fits them."""


def _name(clip: Clip, index: int) -> str:
    return name_of(clip.movers[index].digit)


def _called(clip: Clip, index: int, naming: str) -> str:
    digit, digits = clip.movers[index].digit, [mover.digit for mover in clip.movers]
    if naming == "number" and [other.digit for other in digits].count(digit.digit) == 1:
        return str(digit.digit)
    if naming == "color" and [other.color for other in digits].count(digit.color) == 1:
        return f"{digit.color} digit"
    return name_of(digit)


def _direction(clip: Clip, index: int) -> str:
    """Name and direction, written as a label and its box are: the piece "7[" looks up by the name that it ends."""
    return f"{_name(clip, index)}[{clip.movers[index].direction}]"


def _ask_direction(clip: Clip, rng: np.random.Generator) -> _Found:
    index = int(rng.integers(len(clip.movers)))
    return _Found(answer=_direction(clip, index), words={"name": _name(clip, index)}, subject=index)


def _ask_motions(clip: Clip, rng: np.random.Generator) -> _Found:
    """All of them, the smallest digit first."""
    order = sorted(range(len(clip.movers)), key=lambda index: (clip.movers[index].digit.digit, _name(clip, index)))
    return _Found(answer=join_words([_direction(clip, index) for index in order]), words={})


def _ask_mover(clip: Clip, rng: np.random.Generator) -> _Found | None:
    side = choose(rng, list(DIRECTIONS))
    found = [index for index, mover in enumerate(clip.movers) if mover.direction == side]
    if len(found) != 1:
        return None
    return _Found(answer=f"the {_name(clip, found[0])}", words={"side": side}, subject=found[0])


def in_order(clip: Clip, event: str) -> list[int]:
    """Digits in the order in which they leave ("leaves") or enter ("enters"); those that don't are left out."""
    frames = {index: getattr(clip, event)(index) for index in range(len(clip.movers))}
    return sorted((index for index, frame in frames.items() if frame is not None), key=lambda index: frames[index])


def _ask_end(event: str, place: int) -> Asker:
    def asker(clip: Clip, rng: np.random.Generator) -> _Found:
        index = in_order(clip, event)[place]
        return _Found(answer=f"the {_name(clip, index)}", words={}, subject=index)

    return asker


def _ask_order(event: str) -> Asker:
    def asker(clip: Clip, rng: np.random.Generator) -> _Found:
        names = [f"the {_name(clip, index)}" for index in in_order(clip, event)]
        return _Found(answer=join_words(names), words={})

    return asker


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipKind:
    """A kind of question: plots of clips that it fits, the fewest digits, and what asks it."""

    plots: tuple[Plot, ...]
    least: int
    asker: Asker


CLIP_KINDS = {
    "direction": ClipKind(plots=("stay", "leave", "enter"), least=1, asker=_ask_direction),
    "motions": ClipKind(plots=("stay", "leave", "enter"), least=1, asker=_ask_motions),
    "mover": ClipKind(plots=("stay",), least=2, asker=_ask_mover),
    "leaves_first": ClipKind(plots=("leave",), least=2, asker=_ask_end("leaves", 0)),
    "leaves_last": ClipKind(plots=("leave",), least=2, asker=_ask_end("leaves", -1)),
    "enters_first": ClipKind(plots=("enter",), least=2, asker=_ask_end("enters", 0)),
    "enters_last": ClipKind(plots=("enter",), least=2, asker=_ask_end("enters", -1)),
    "leave_order": ClipKind(plots=("leave",), least=2, asker=_ask_order("leaves")),
    "enter_order": ClipKind(plots=("enter",), least=2, asker=_ask_order("enters")),
}
"""Kind of question -> what it takes."""


def make_clip_question(
    rng: np.random.Generator,
    kind: str,
    num_digits: Sequence[int] = (1, 2, 3),
    split: Split = "train",
    num_frames: int = 8,
    size: int = 64,
    warp: float = 0.0,
    named: Sequence[str] = NAMINGS[:1],
) -> tuple[Clip, ClipQuestion]:
    """A clip and a question of one kind about it.

    Args:
        rng: all randomness comes from here.
        kind: a key of `CLIP_KINDS`.
        num_digits: numbers of digits that a clip may have; those too small for the kind are passed over.
        split, num_frames, size, warp: see `make_clip`.
        named: see `ask_about`.

    Raises:
        DataError: clips of these settings cannot be made.
    """
    wanted = CLIP_KINDS[kind]
    numbers = [number for number in num_digits if number >= wanted.least] or [wanted.least]
    while True:
        plot = wanted.plots[int(rng.integers(len(wanted.plots)))]
        number = numbers[int(rng.integers(len(numbers)))]
        clip = make_clip(rng, plot, number, split, num_frames, size, warp)
        question = ask_about(rng, clip, kind, named)
        if question is not None:
            return clip, question


def ask_about(
    rng: np.random.Generator, clip: Clip, kind: str, named: Sequence[str] = NAMINGS[:1]
) -> ClipQuestion | None:
    """A question of one kind about a clip; None where the clip leaves no clear answer to any.

    Args:
        rng: all randomness comes from here.
        clip: what it is about.
        kind: a key of `CLIP_KINDS`.
        named: some of `NAMINGS`; one is drawn for the digit that is asked about.
    """
    wanted = CLIP_KINDS[kind]
    fits = clip.plot in wanted.plots and len(clip.movers) >= wanted.least
    found = wanted.asker(clip, rng) if fits else None
    if found is None:
        return None
    words = dict(found.words)
    # No draw where there is nothing to choose: full names leave all further draws of a seed as they are.
    if "name" in words and found.subject is not None and tuple(named) != NAMINGS[:1]:
        words["name"] = _called(clip, found.subject, choose(rng, named))
    text = ask(rng, CLIP_PHRASES[kind], **words)
    return ClipQuestion(text=text, answer=found.answer, kind=kind, subject=found.subject)


def ask_more(
    rng: np.random.Generator,
    clip: Clip,
    first: ClipQuestion,
    kinds: Callable[[], str],
    number: int,
    named: Sequence[str] = NAMINGS[:1],
) -> list[ClipQuestion]:
    """Up to `number` further questions about a clip, none about the same thing as one before.

    Args:
        rng: all randomness but that of the kinds comes from here.
        clip: what they are about.
        first: the question that was asked first.
        kinds: draws a kind of question.
        number: how many; fewer come back where the clip leaves no more.
        named: see `ask_about`.
    """
    asked, seen = [], {(first.kind, first.answer, first.subject)}
    for _ in range(4 * number):
        question = ask_about(rng, clip, kinds(), named) if len(asked) < number else None
        if question is not None and (question.kind, question.answer, question.subject) not in seen:
            seen.add((question.kind, question.answer, question.subject))
            asked.append(question)
    return asked
