"""Reading requests in words: numbers, places, relations, and the boxes that they ask for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmunify.experts.tasks._colors import find_colors
from mmunify.types import Box, Region

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MAX_OBJECTS = 9

_NUMBER = re.compile(rf"\b(\d{{1,6}}|{'|'.join(DIGIT_WORDS)})s?\b", re.IGNORECASE)
_NO_NOUN = r"(?=\W*$|\W*[,.;!?]|\s+(?:and|on|at|in|to|is|left|right|above|below|over|under|with|next|beside|by)\b)"
_COLORED_NUMBER = re.compile(rf"(?:[#\w]+\s+){{0,2}}{_NUMBER.pattern}{_NO_NOUN}", re.IGNORECASE)
_PARTS = re.compile(r"[,;]|\band\b|\bbeside\b|\bnext to\b", re.IGNORECASE)
_RELATIONS = (
    (re.compile(r"\bleft of\b"), ((0, 1), (2, 1))),
    (re.compile(r"\bright of\b"), ((2, 1), (0, 1))),
    (re.compile(r"\babove\b|\bon top of\b|\bover\b"), ((1, 0), (1, 2))),
    (re.compile(r"\bbelow\b|\bunder(?:neath)?\b|\bbeneath\b"), ((1, 2), (1, 0))),
)
_ROW = ((0, re.compile(r"\b(?:top|upper)\b")), (2, re.compile(r"\b(?:bottom|lower)\b")))
_COLUMN = ((0, re.compile(r"\bleft\b")), (2, re.compile(r"\bright\b")))
_CENTER = re.compile(r"\b(?:center|centre|middle)\b")

STARTS, SIDE = (1 / 64, 22 / 64, 43 / 64), 20 / 64
"""Columns and rows of the 3 x 3 grid of places begin here; a place is this wide and high."""

Cell = tuple[int, int]
"""(column, row) of the grid."""

ARRANGEMENTS: tuple[tuple[Cell, ...], ...] = (
    (),
    ((1, 1),),
    ((0, 1), (2, 1)),
    ((0, 1), (1, 1), (2, 1)),
    ((0, 0), (2, 0), (0, 2), (2, 2)),
)
RASTER: tuple[Cell, ...] = tuple((column, row) for row in range(3) for column in range(3))


@dataclass(frozen=True, slots=True)
class _Mention:
    """A thing in a prompt, and what is said of it before the next one is mentioned."""

    label: str
    tail: str


def find_number(text: str) -> str | None:
    """The last number that a text names, as digits ("replace the 7 by an eight" -> "8"), or None."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    word = found[-1].lower()
    return str(DIGIT_WORDS.index(word)) if word in DIGIT_WORDS else word


def bare(phrase: str) -> str:
    """A phrase without its article: "a star" -> "star"."""
    return re.sub(r"^(?:an?|the)\s+", "", phrase.strip(), flags=re.IGNORECASE)


def lay_out(prompt: str) -> list[Region]:
    """Labelled boxes for what a prompt names: numbers with their colours, else its phrases, at most nine.

    Places ("at the top left") and relations ("to the left of", "above") are obeyed; what is left stands in a row.
    """
    mentions = (_numbers(prompt) or _phrases(prompt))[:MAX_OBJECTS]
    cells = _named_cells(mentions)
    free = [cell for cell in _arrangement(len(mentions), any(cells)) if cell not in cells]
    taken = [cell or free.pop(0) for cell in cells]
    return [Region(box=cell_box(cell), label=mention.label) for mention, cell in zip(mentions, taken, strict=True)]


def cell_box(cell: Cell) -> Box:
    """The box of a place of the grid."""
    x, y = STARTS[cell[0]], STARTS[cell[1]]
    return x, y, x + SIDE, y + SIDE


def _arrangement(count: int, is_mixed: bool) -> tuple[Cell, ...]:
    return ARRANGEMENTS[count] if count < len(ARRANGEMENTS) and not is_mixed else RASTER


def _numbers(prompt: str) -> list[_Mention]:
    """Every number of a prompt that counts nothing ("two dogs" is no number), with the colour before it."""
    found = list(_COLORED_NUMBER.finditer(prompt))
    ends = [*(following.start() for following in found[1:]), len(prompt)]
    mentions = []
    for mention, end in zip(found, ends, strict=False):
        colors = find_colors(mention[0])
        label = " ".join([*(name for name, _ in colors[-1:]), find_number(mention[0]) or ""])
        mentions.append(_Mention(label, prompt[mention.end() : end]))
    return mentions


def _phrases(prompt: str) -> list[_Mention]:
    """The parts of a prompt without numbers."""
    parts = [part.strip(" .!?\n") for part in _PARTS.split(prompt)]
    return [_Mention(part, part) for part in parts if part] or [_Mention(prompt.strip() or "?", "")]


def _named_cells(mentions: list[_Mention]) -> list[Cell | None]:
    """The place of every mention, if it has one that nobody before it has."""
    cells: list[Cell | None] = [None] * len(mentions)
    for index, mention in enumerate(mentions):
        related = _relation(mention.tail) if index + 1 < len(mentions) else None
        wanted = related or (_place(mention.tail),)
        for offset, cell in enumerate(wanted):
            if cell is not None and cell not in cells and cells[index + offset] is None:
                cells[index + offset] = cell
    return cells


def _relation(tail: str) -> tuple[Cell, Cell] | None:
    return next((cells for pattern, cells in _RELATIONS if pattern.search(tail.lower())), None)


def _place(tail: str) -> Cell | None:
    words = tail.lower()
    row, column = _first_match(_ROW, words), _first_match(_COLUMN, words)
    if row is None and column is None:
        return (1, 1) if _CENTER.search(words) else None
    return (1 if column is None else column, 1 if row is None else row)


def _first_match(choices: Sequence[tuple[int, re.Pattern[str]]], words: str) -> int | None:
    return next((index for index, pattern in choices if pattern.search(words)), None)
