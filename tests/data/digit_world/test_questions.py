"""Questions: every answer is recomputed from the words of the question alone, by other code."""

import re
from collections import Counter

import numpy as np
import pytest

from mmunify.data.digit_world import phrases, questions
from mmunify.data.digit_world.scene import COLORS, Digit, Scene, make_scene

COLOR, NUMBER = "|".join(COLORS), r"\d"


def _ask_many(count: int) -> list[tuple[Scene, questions.Question]]:
    rng = np.random.default_rng(3)
    scenes = [make_scene(rng) for _ in range(count)]
    return [(scene, questions.make_question(scene, rng)) for scene in scenes]


ASKED = _ask_many(3000)


def _center(digit: Digit, axis: int) -> float:
    return (digit.box[axis] + digit.box[axis + 2]) / 2


def _named(scene: Scene, text: str) -> list[Digit]:
    names = re.findall(rf"({COLOR}) ({NUMBER})", text)
    return [d for color, number in names for d in scene.digits if (d.color, d.digit) == (color, int(number))]


def _solve(scene: Scene, question: questions.Question) -> set[str]:
    """Every answer that could be called right."""
    text, digits = question.text, scene.digits
    color, number = re.search(COLOR, text), re.search(NUMBER, text)
    if question.kind == "color":
        return {d.color for d in digits if number and d.digit == int(number.group())}
    if question.kind == "digit":
        return {str(d.digit) for d in digits if color and d.color == color.group()}
    if question.kind == "exists":
        return {"yes" if _named(scene, text) else "no"}
    if question.kind == "count_color":
        return {str(sum(d.color == color.group() for d in digits))} if color else set()
    if question.kind == "extreme":
        axis, best = {"leftmost": (0, min), "rightmost": (0, max), "top": (1, min), "bottom": (1, max)}[
            next(side for side in phrases.SIDES if side in text)
        ]
        edge = best(_center(d, axis) for d in digits)
        return {f"the {d.color} {d.digit}" for d in digits if abs(_center(d, axis) - edge) < 4}
    if question.kind == "relation":
        first, second = _named(scene, text)
        axis, sign = next(
            v for k, v in {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}.items() if k in text
        )
        distance = sign * (_center(second, axis) - _center(first, axis))
        return {"yes", "no"} if abs(distance) < 4 else {"yes" if distance > 0 else "no"}
    values = [d.digit for d in digits]
    return {str({"count": len, "sum": sum, "largest": max, "smallest": min}[question.kind](values))}


def test_every_question_has_exactly_one_answer() -> None:
    wrong = [(q.text, q.answer, found) for scene, q in ASKED if (found := _solve(scene, q)) != {q.answer}]
    assert wrong == []


def test_all_kinds_are_asked() -> None:
    counts = Counter(question.kind for _, question in ASKED)
    assert set(counts) == set(phrases.QUESTION)
    assert min(counts.values()) > 100


@pytest.mark.parametrize("kind", ["exists", "relation"])
def test_yes_and_no_are_balanced(kind: str) -> None:
    answers = [question.answer == "yes" for _, question in ASKED if question.kind == kind]
    assert abs(np.mean(answers) - 0.5) < 3 * 0.5 / np.sqrt(len(answers))


def test_questions_about_a_colour_may_be_answered_by_zero() -> None:
    assert {"0", "1", "2"} <= {question.answer for _, question in ASKED if question.kind == "count_color"}


def _pair(x: int) -> Scene:
    boxes = [(10, 10, 20, 30), (x, 40, x + 10, 60)]
    return Scene(
        digits=tuple(Digit(digit=i, color="red", box=box, sample=0, place=(0, 0, 20)) for i, box in enumerate(boxes))
    )


def test_close_calls_are_not_made() -> None:
    near, far = _pair(13), _pair(14)
    assert (
        questions.extreme(near, "leftmost") is None
        and questions.holds(near, *near.digits[:1], "left", near.digits[1]) is None
    )
    assert (
        questions.extreme(far, "leftmost") == 0 and questions.holds(far, far.digits[0], "left", far.digits[1]) is True
    )
    assert questions.holds(far, far.digits[0], "right", far.digits[1]) is False
    assert questions.extreme(near, "bottom") == 1 and questions.extreme(near, "top") == 0


def test_a_single_digit_has_no_side() -> None:
    assert questions.extreme(Scene(digits=_pair(30).digits[:1]), "top") is None
