"""Ways to point at one digit of a scene in words: by name, by what only it has, or by reasoning."""

from collections import Counter

import numpy as np

from mmunify.data.digit_world import phrases
from mmunify.data.digit_world.questions import extreme
from mmunify.data.digit_world.scene import Scene
from mmunify.data.digit_world.words import name_of

REASONING_RATE = 0.4
"""How often a digit is pointed at by reasoning, where the scene allows it."""

SUM_RATE = 0.5
"""How often reasoning is about the sum, in the few scenes where one digit is the sum of the other two."""

Referent = tuple[int, str, str]
"""Index of the digit, the words that mean it, and their kind."""


def named_referents(scene: Scene) -> list[Referent]:
    """By name for every digit ("the red 7"); "the 7" and "the red digit" where no other digit fits."""
    digits, colors = Counter(d.digit for d in scene.digits), Counter(d.color for d in scene.digits)
    found = []
    for index, digit in enumerate(scene.digits):
        found.append((index, f"the {name_of(digit)}", "name"))
        if digits[digit.digit] == 1:
            found.append((index, f"the {digit.digit}", "digit"))
        if colors[digit.color] == 1:
            found.append((index, f"the {digit.color} digit", "color"))
    return found


def sum_of_others(scene: Scene) -> int | None:
    """Index of the digit that is the sum of the other two; None if there is none, or more than one."""
    values = [digit.digit for digit in scene.digits]
    found = [index for index, value in enumerate(values) if 2 * value == sum(values)]
    return found[0] if len(values) == 3 and len(found) == 1 else None


def reasoned_referents(scene: Scene) -> list[Referent]:
    """Words like "the largest digit" and "the leftmost digit": those that mean exactly one digit of the scene."""
    values = [digit.digit for digit in scene.digits]
    if len(values) < 2:
        return []
    found = []
    for word, value in (("largest", max(values)), ("smallest", min(values))):
        if values.count(value) == 1:
            found.append((values.index(value), f"the {word} digit", word))
    for side in phrases.SIDES:
        index = extreme(scene, side)
        if index is not None:
            found.append((index, f"the {side} digit", side))
    return found


def make_referent(scene: Scene, rng: np.random.Generator) -> Referent:
    """Point at one digit of the scene, unambiguously."""
    if rng.random() < REASONING_RATE:
        index = sum_of_others(scene)
        if index is not None and rng.random() < SUM_RATE:
            return index, phrases.SUM_OF_OTHERS, "sum"
        reasoned = reasoned_referents(scene)
        if reasoned:
            return reasoned[rng.integers(len(reasoned))]
    named = named_referents(scene)
    return named[rng.integers(len(named))]
