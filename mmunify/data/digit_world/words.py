"""The words of the digit world: names, captions, scenes as text, and the whole vocabulary."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from mmunify.data.digit_world import phrases
from mmunify.data.digit_world.scene import COLORS, MAX_DIGITS, Digit, Scene

CELLS = 8
"""Rows and columns of the grid in which scenes are labelled for the vision tower."""

GRID = 64
"""Boxes of 64-pixel scenes are multiples of 1 / GRID."""

PLACES = ("left", "top", "right", "bottom", "x", "y")
"""What scenes in words say of a digit's place: the edges of its box and its middle."""

LOWER_CASE_RATE = 0.2
"""How often a user writes without a capital and a final mark."""

WORD = re.compile(r"\d\.\d{3}|scene:|[A-Za-z]+\d*|\d+|[^\sA-Za-z\d]")
"""One entry of the vocabulary in a running text (task and grounding tokens apart)."""


def name_of(digit: Digit) -> str:
    """The name by which a digit is known in its scene: "red 7"."""
    return f"{digit.color} {digit.digit}"


def article(name: str) -> str:
    """The name with its indefinite article: "a red 7", "an orange 3", "an 8"."""
    return f"{'an' if name[0] in 'aeiou8' else 'a'} {name}"


def join_words(items: Sequence[str]) -> str:
    """A list in words: "a", "a and b", "a, b and c"."""
    return " and ".join([*([", ".join(items[:-1])] if items[1:] else []), *items[-1:]])


def center(digit: Digit) -> tuple[float, float]:
    """(x, y) of the middle of a digit's box, in pixels."""
    x0, y0, x1, y1 = digit.box
    return (x0 + x1) / 2, (y0 + y1) / 2


def reading_order(digits: Iterable[Digit]) -> list[Digit]:
    """Digits from left to right, by the middle of their boxes (`conversations` keeps these apart)."""
    return sorted(digits, key=center)


def caption(scene: Scene) -> str:
    """The one description of a scene: its digits in reading order."""
    return join_words([article(name_of(digit)) for digit in reading_order(scene.digits)])


def choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of several phrases."""
    return options[int(rng.integers(len(options)))]


def ask(rng: np.random.Generator, options: Sequence[str], **fill: object) -> str:
    """What a user says: one of the phrases, filled in, now and then without a capital and a final mark."""
    text = choose(rng, options).format(**fill)
    return text[0].lower() + text[1:].rstrip(".?") if rng.random() < LOWER_CASE_RATE else text


def cell_owners(scene: Scene) -> np.ndarray:
    """Which digit each cell of the grid belongs to: int [CELLS CELLS], -1 for none.

    A cell belongs to a digit if the cell's centre lies in the digit's box; a digit too thin to hold any centre gets
    the cell in which its own centre lies.
    """
    owners = np.full((CELLS, CELLS), -1)
    cell = scene.size / CELLS
    for index, digit in enumerate(scene.digits):
        left, top, right, bottom = (int(np.ceil(edge / cell - 0.5)) for edge in digit.box)
        if left < right and top < bottom:
            owners[max(top, 0) : bottom, max(left, 0) : right] = index
        else:
            x, y = center(digit)
            owners[min(int(y / cell), CELLS - 1), min(int(x / cell), CELLS - 1)] = index
    return owners


def place_words(digit: Digit, size: int) -> list[str]:
    """Where a digit is, in parts of 1 / GRID: the edges of its box and its middle ("left12", "top20", ...)."""
    x0, y0, x1, y1 = (round(GRID * edge) for edge in digit.norm_box(size))
    places = (x0, y0, x1, y1, (x0 + x1) // 2, (y0 + y1) // 2)
    return [f"{name}{place}" for name, place in zip(PLACES, places, strict=True)]


def scene_text(scene: Scene) -> str:
    """A scene in words: "scene:", then for each digit six facts about its place, each beside its name, in mixed order.

    "scene: red 7 top20 blue 1 left40 red 7 left12 ...". Every fact carries its owner, because that is how a patch of a
    picture tells it: what a text model learns to read from such a pair, it can read from a single patch embedding. The
    order is drawn from the scene itself, so that a scene always reads the same.
    """
    facts = [f"{name_of(digit)} {place}" for digit in scene.digits for place in place_words(digit, scene.size)]
    order = np.random.default_rng([number for digit in scene.digits for number in digit.box]).permutation(len(facts))
    return " ".join([phrases.SCENE, *(facts[index] for index in order)])


def vocabulary() -> list[str]:
    """Every word, number and mark of the digit world, sorted: what a tokenizer needs to hold as single entries.

    Numbers are the digits, the counts and sums that questions ask for, and the coordinates k / 64 with 3 decimals.
    """
    running = " ".join([*phrases.all_phrases(), "a an the digit and yes no"])
    words = set(WORD.findall(re.sub(r"{\w+}", " ", running)))
    words |= {word.lower() for word in words} | set(COLORS) | {phrases.SCENE, *",.:?[]"}
    words |= {f"{name}{place}" for name in PLACES for place in range(GRID + 1)}
    words |= {str(number) for number in range(9 * MAX_DIGITS + 1)}
    words |= {f"{round(1000 * k / GRID) / 1000:.3f}" for k in range(GRID + 1)}
    return sorted(words)
