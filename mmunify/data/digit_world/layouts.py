"""Where digits go that are asked for in words: the rule from places to boxes, prompts, and scenes drawn by the rule.

Places form a 3 x 3 grid; a place always means the same box. Objects without a named place stand in a row from left to
right: one in the middle, two left and right, three left, middle and right, four in the corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmunify.data.digit_world import handwriting, phrases
from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.scene import COLORS, MAX_DIGITS, Digit, Scene, fit_digit
from mmunify.data.digit_world.words import article, choose, join_words
from mmunify.types import Box, Region

STARTS = (1, 22, 43)
"""Where a column or a row of the 3 x 3 grid begins, in 64ths of the picture."""

SIDE = 20
"""Width and height of a layout's boxes, in 64ths of the picture."""

ROWS = (
    (),
    ("in the center",),
    ("on the left", "on the right"),
    ("on the left", "in the center", "on the right"),
    ("at the top left", "at the top right", "at the bottom left", "at the bottom right"),
)
"""Number of objects -> their places when none is named."""

OPPOSITE = {
    "left": ("on the left", "on the right"),
    "right": ("on the right", "on the left"),
    "top": ("at the top", "at the bottom"),
    "bottom": ("at the bottom", "at the top"),
}
"""Relation of the first object to the second -> the places of both."""

Relation = tuple[str, str, str]
"""(first object, relation, second object); relations are left, right, top and bottom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One object of a plan, at one of `phrases.PLACES`."""

    digit: int
    color: str
    place: str

    @property
    def name(self) -> str:
        """Its name: "red 7"."""
        return f"{self.color} {self.digit}"

    @property
    def cell(self) -> tuple[int, int]:
        """(column, row) of its place."""
        row, column = divmod(phrases.PLACES.index(self.place), 3)
        return column, row

    @property
    def box(self) -> Box:
        """The box that its place stands for, in 0..1."""
        x, y = (STARTS[index] for index in self.cell)
        return x / 64, y / 64, (x + SIDE) / 64, (y + SIDE) / 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a prompt asks for.

    Attributes:
        kind: "row" (no place named), "places" (all named) or "relation" (one beside the other).
        objects: in the order in which they are mentioned.
        words: the prompt's words: "a red 7 on the left and a blue 3 on the right".
    """

    kind: Literal["row", "places", "relation"]
    objects: tuple[Planned, ...]
    words: str

    @property
    def names(self) -> str:
        """The objects without their places: "a red 7 and a blue 3"."""
        return join_words([article(planned.name) for planned in self.objects])

    @property
    def regions(self) -> tuple[Region, ...]:
        """The grounded regions of a layout call, in order."""
        return tuple(Region(box=planned.box, label=planned.name) for planned in self.objects)

    @property
    def relations(self) -> list[Relation]:
        """The relations that the words ask for: of every pair of named places that shares a row or a column."""
        return [] if self.kind == "row" else find_relations(self.objects)


def find_relations(objects: Sequence[Planned]) -> list[Relation]:
    """Relations of all pairs whose places share a row or a column."""
    found = []
    for index, first in enumerate(objects):
        for second in objects[index + 1 :]:
            (column, row), (other_column, other_row) = first.cell, second.cell
            if row == other_row:
                found.append((first.name, "left" if column < other_column else "right", second.name))
            elif column == other_column:
                found.append((first.name, "top" if row < other_row else "bottom", second.name))
    return found


def draw_plan(rng: np.random.Generator) -> Plan:
    """A random prompt for a picture of 1 to 4 digits, no two of one digit and colour."""
    kind = ("row", "places", "relation")[rng.integers(3)]
    number = 2 if kind == "relation" else int(rng.integers(1, MAX_DIGITS + 1))
    relation = choose(rng, list(OPPOSITE))
    if kind == "places":
        places = [phrases.PLACES[index] for index in rng.permutation(len(phrases.PLACES))[:number]]
    else:
        places = OPPOSITE[relation] if kind == "relation" else ROWS[number]
    things = rng.permutation(10 * len(COLORS))[:number].tolist()
    objects = tuple(
        Planned(digit=thing % 10, color=list(COLORS)[thing // 10], place=place)
        for thing, place in zip(things, places, strict=True)
    )
    names = [article(planned.name) for planned in objects]
    if kind == "relation":
        return Plan(kind=kind, objects=objects, words=f"{names[0]} {phrases.RELATIONS[relation]} {names[1]}")
    if kind == "places":
        names = [f"{name} {place}" for name, place in zip(names, places, strict=True)]
    return Plan(kind=kind, objects=objects, words=join_words(names))


def draw_plan_scene(plan: Plan, rng: np.random.Generator, split: Split, size: int = 64) -> Scene:
    """The scene that a plan asks for, in the handwriting of a split.

    Its background is always the one with seed 0, because no word of a prompt tells it.
    """
    digits: list[Digit] = []
    for planned in plan.objects:
        sample = handwriting.pick(rng, planned.digit, split)
        x0, y0, x1, y1 = (round(edge * size) for edge in planned.box)
        digits.append(fit_digit(sample, planned.color, (x0, y0, x1, y1)))
    return Scene(digits=tuple(digits), size=size)
