"""Questions about clips: every answer is found again in the drawn masks, by other code."""

import re
from collections import Counter

import numpy as np
import pytest

from mmunify.data.digit_world.clip_questions import (
    CLIP_KINDS,
    CLIP_PHRASES,
    ask_about,
    ask_more,
    in_order,
    make_clip_question,
)
from mmunify.data.digit_world.clips import clip_masks
from mmunify.data.digit_world.words import WORD, vocabulary

NAME = r"(red|green|blue|yellow|purple|orange) (\d)"


def seen(clip):
    """Name of every digit -> frames in which it shows, and how its middle moves, from its masks alone."""
    found = {}
    for index, mover in enumerate(clip.movers):
        masks = clip_masks(clip, index)
        frames = np.flatnonzero(masks.any(axis=(1, 2)))
        whole = [frame for frame in frames if masks[frame].sum() == masks.sum(axis=(1, 2)).max()] or list(frames)
        # a part of a digit at the edge has its middle elsewhere: edges of the ink that lies inside move as well
        places = [np.argwhere(masks[frame]).mean(axis=0) for frame in (frames if len(whole) < 2 else whole)]
        found[f"{mover.digit.color} {mover.digit.digit}"] = (frames, places[-1] - places[0])
    return found


def direction_of(way):
    down, across = way
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "top" if down < 0 else "bottom"


def solve(clip, question):
    digits = seen(clip)
    names = [" ".join(name) for name in re.findall(NAME, question.text)]
    first_seen = sorted(digits, key=lambda name: digits[name][0][0])
    last_seen = sorted(digits, key=lambda name: digits[name][0][-1])
    if question.kind == "direction":
        return f"{names[0]}[{direction_of(digits[names[0]][1])}]"
    if question.kind == "motions":
        order = sorted(digits, key=lambda name: (name[-1], name))
        *firsts, last = [f"{name}[{direction_of(digits[name][1])}]" for name in order]
        return f"{', '.join(firsts)} and {last}" if firsts else last
    if question.kind == "mover":
        side = re.search("left|right|top|bottom", question.text)[0]
        (name,) = [name for name in digits if direction_of(digits[name][1]) == side]
        return f"the {name}"
    order = last_seen if "leave" in question.kind else first_seen
    if question.kind.endswith("order"):
        *firsts, last = [f"the {name}" for name in order]
        return f"{', '.join(firsts)} and {last}"
    return f"the {order[0 if question.kind.endswith('first') else -1]}"


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_the_answer_is_what_the_masks_show(kind):
    rng = np.random.default_rng(1)
    for _ in range(25):
        clip, question = make_clip_question(rng, kind)
        if kind in ("direction", "motions") and not all(clip_masks(clip, i).any() for i in range(len(clip.movers))):
            continue
        assert question.answer == solve(clip, question)
        assert question.kind == kind
        if question.subject is not None:
            mover = clip.movers[question.subject]
            name = f"{mover.digit.color} {mover.digit.digit}"
            assert name in question.text + question.answer


def test_directions_are_balanced():
    rng = np.random.default_rng(2)
    answers = Counter(make_clip_question(rng, "direction", [1])[1].answer.split("[")[1] for _ in range(200))
    assert set(answers) == {"left]", "right]", "top]", "bottom]"}
    assert min(answers.values()) > 25


def test_which_digit_is_the_first_cannot_be_told_from_its_name_or_number():
    rng = np.random.default_rng(3)
    asked = [make_clip_question(rng, "leaves_first", [2]) for _ in range(100)]
    assert 30 < sum(question.subject == 0 for _, question in asked) < 70
    assert all(in_order(clip, "leaves")[0] == question.subject for clip, question in asked)


def test_kinds_that_compare_get_enough_digits():
    rng = np.random.default_rng(4)
    assert len(make_clip_question(rng, "leave_order", [1])[0].movers) == 2
    assert len(make_clip_question(rng, "leave_order", [3, 1])[0].movers) == 3


def test_answers_use_words_that_the_tokenizer_knows():
    known, rng = set(vocabulary()), np.random.default_rng(5)
    answers = [make_clip_question(rng, kind)[1].answer for kind in CLIP_KINDS for _ in range(5)]
    assert {word for answer in answers for word in WORD.findall(answer)} <= known
    assert set(CLIP_PHRASES) == set(CLIP_KINDS)


def test_kinds_that_do_not_fit_a_clip_are_not_asked():
    rng = np.random.default_rng(6)
    kinds, (clip, first) = list(CLIP_KINDS), make_clip_question(rng, "leaves_first", [2])
    asked = {kind for kind in CLIP_KINDS for _ in range(5) if ask_about(rng, clip, kind) is not None}
    assert asked == {"direction", "motions", "leaves_first", "leaves_last", "leave_order"}
    more = ask_more(rng, clip, first, lambda: kinds[rng.integers(len(kinds))], 9)
    assert sorted(question.kind for question in more) == [
        "direction",
        "direction",
        "leave_order",
        "leaves_last",
        "motions",
    ]
