"""Questions about a scene with exactly one right, short answer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmunify.data.digit_world import phrases
from mmunify.data.digit_world.scene import COLORS, Digit, Scene
from mmunify.data.digit_world.words import ask, center, choose, name_of

CLEAR = 4 / 64
"""Digits whose centres lie closer than this, in parts of the picture, are not compared along that axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, its only answer, and its kind: a key of `phrases.QUESTION`."""

    text: str
    answer: str
    kind: str


Asker = Callable[[Scene, np.random.Generator], tuple[dict[str, object], str] | None]
"""What fills the phrases of one kind of question and the answer; None where the scene leaves no clear question."""


def _only(scene: Scene, attribute: str, rng: np.random.Generator) -> Digit | None:
    """A digit whose digit or colour no other digit of the scene has."""
    counts = Counter(getattr(digit, attribute) for digit in scene.digits)
    single = [digit for digit in scene.digits if counts[getattr(digit, attribute)] == 1]
    return single[rng.integers(len(single))] if single else None


def extreme(scene: Scene, side: str) -> int | None:
    """Index of the leftmost, rightmost, top or bottom digit; None if two are too close to tell."""
    axis, sign = {"leftmost": (0, 1), "rightmost": (0, -1), "top": (1, 1), "bottom": (1, -1)}[side]
    along = [sign * center(digit)[axis] for digit in scene.digits]
    first, *rest = sorted(range(len(along)), key=along.__getitem__)
    clear = all(along[other] - along[first] >= CLEAR * scene.size for other in rest)
    return first if rest and clear else None


def holds(scene: Scene, first: Digit, relation: str, second: Digit) -> bool | None:
    """Whether `first` lies left, right, top or bottom of `second`; None if they are too close to tell."""
    axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[relation]
    distance = sign * (center(second)[axis] - center(first)[axis])
    return distance > 0 if abs(distance) >= CLEAR * scene.size else None


def _ask_color(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str] | None:
    digit = _only(scene, "digit", rng)
    return digit and ({"digit": digit.digit}, digit.color)


def _ask_digit(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str] | None:
    digit = _only(scene, "color", rng)
    return digit and ({"color": digit.color}, str(digit.digit))


def _ask_exists(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str]:
    """Yes and no equally often; half of the things that don't exist share their colour or digit with one that does."""
    names = {name_of(digit) for digit in scene.digits}
    digit = scene.digits[rng.integers(len(scene.digits))]
    if rng.random() < 0.5:
        return {"name": name_of(digit)}, "yes"
    swaps = [f"{color} {digit.digit}" for color in COLORS] + [f"{digit.color} {other}" for other in range(10)]
    others = [f"{color} {other}" for color in COLORS for other in range(10)]
    absent = [name for name in (swaps if rng.random() < 0.5 else others) if name not in names]
    return {"name": choose(rng, absent)}, "no"


def _ask_count(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str]:
    return {}, str(len(scene.digits))


def _ask_count_color(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str]:
    """A colour of the scene in three of four questions, any colour otherwise (the answer may be 0)."""
    present = [digit.color for digit in scene.digits]
    color = choose(rng, present if rng.random() < 0.75 else list(COLORS))
    return {"color": color}, str(present.count(color))


def _ask_extreme(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str] | None:
    side = choose(rng, phrases.SIDES)
    index = extreme(scene, side)
    return None if index is None else ({"side": side}, f"the {name_of(scene.digits[index])}")


def _ask_relation(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str] | None:
    """The two digits and the relation are drawn in either order: yes and no are equally likely."""
    if len(scene.digits) < 2:
        return None
    first, second = (scene.digits[index] for index in rng.permutation(len(scene.digits))[:2])
    relation = choose(rng, list(phrases.RELATIONS))
    truth = holds(scene, first, relation, second)
    words: dict[str, object] = {"first": f"the {name_of(first)}", "second": f"the {name_of(second)}"}
    words["relation"] = phrases.RELATIONS[relation]
    return None if truth is None else (words, "yes" if truth else "no")


def _ask_sum(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str]:
    return {}, str(sum(digit.digit for digit in scene.digits))


def _ask_largest(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str]:
    return {}, str(max(digit.digit for digit in scene.digits))


def _ask_smallest(scene: Scene, rng: np.random.Generator) -> tuple[dict[str, object], str]:
    return {}, str(min(digit.digit for digit in scene.digits))


ASKERS: dict[str, Asker] = {
    "color": _ask_color,
    "digit": _ask_digit,
    "exists": _ask_exists,
    "count": _ask_count,
    "count_color": _ask_count_color,
    "extreme": _ask_extreme,
    "relation": _ask_relation,
    "sum": _ask_sum,
    "largest": _ask_largest,
    "smallest": _ask_smallest,
}
"""Kind of question -> what asks it."""


def make_question(scene: Scene, rng: np.random.Generator) -> Question:
    """A question of a random kind; kinds that the scene leaves no clear question for are passed over."""
    while True:
        kind = choose(rng, list(ASKERS))
        found = ASKERS[kind](scene, rng)
        if found:
            words, answer = found
            return Question(text=ask(rng, phrases.QUESTION[kind], **words), answer=answer, kind=kind)
