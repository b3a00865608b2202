"""Tasks: calls are well formed, and say of the scene what is true."""

import numpy as np
import pytest

from mmunify.data.digit_world import edits, phrases
from mmunify.data.digit_world.conversations import draw_clear_scene
from mmunify.data.digit_world.tasks import TASKS, Exchange
from mmunify.tokens import GROUNDED_TASKS, format_call, parse_reply

NUMBER = 60
ON_REGIONS = ("segment", "remove", "recolor", "replace")


def _exchanges(task: str) -> list[Exchange]:
    rng = np.random.default_rng(7)
    return [TASKS[task](draw_clear_scene(rng, "train", (1, 2, 3, 4)), rng, "train") for _ in range(NUMBER)]


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_words_or_one_well_formed_call(task: str) -> None:
    for exchange in _exchanges(task):
        assert exchange.task == task and exchange.user
        assert bool(exchange.answer) != (exchange.call is not None)
        parsed = parse_reply(
            exchange.opening + (format_call(exchange.call) if exchange.call else exchange.answer), "strict"
        )
        assert parsed.problems == ()
        assert [call.task for call in parsed.calls] == ([task] if exchange.call else [])
        assert bool(parsed.calls and parsed.calls[0].regions) == (task in GROUNDED_TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_draws_make_the_same_exchange(task: str) -> None:
    assert _exchanges(task)[:5] == _exchanges(task)[:5]


@pytest.mark.parametrize("task", ON_REGIONS)
def test_region_calls_hold_the_exact_box_and_name(task: str) -> None:
    for exchange in _exchanges(task):
        digit = exchange.scene.digits[exchange.subject]
        (region,) = exchange.call.regions
        assert region.box == digit.norm_box(64)
        assert region.label == f"{digit.color} {digit.digit}"
        if task in ("segment", "remove"):
            assert exchange.call.instruction == f"the {region.label}"


@pytest.mark.parametrize("task", ["recolor", "replace"])
def test_edits_change_what_the_user_asks_for_and_keep_digits_distinct(task: str) -> None:
    for exchange in _exchanges(task):
        old, new = exchange.scene.digits[exchange.subject], exchange.result.digits[exchange.subject]
        wanted = exchange.call.instruction
        assert wanted in exchange.user
        expected = (old.digit, wanted) if task == "recolor" else (int(wanted), old.color)
        assert (new.digit, new.color) == expected != (old.digit, old.color)
        names = [(digit.digit, digit.color) for digit in exchange.result.digits]
        assert len(set(names)) == len(names)


def test_removing_leaves_the_others() -> None:
    for exchange in _exchanges("remove"):
        assert exchange.result == edits.remove_digit(exchange.scene, exchange.subject)


def test_references_answer_with_the_box_alone() -> None:
    for exchange in _exchanges("refer"):
        digit = exchange.scene.digits[exchange.subject]
        (region,) = parse_reply(exchange.answer, "strict").regions
        assert region.label == f"{digit.color} {digit.digit}"
        np.testing.assert_allclose(region.box, digit.norm_box(64), atol=0.0005)


def test_global_edits_use_canonical_instructions() -> None:
    found = {exchange.call.instruction: exchange.user for exchange in _exchanges("edit")}
    assert set(found) == set(edits.GLOBAL_EDITS)
    for instruction, user in found.items():
        asked = [phrase.lower().rstrip(".") for phrase in phrases.EDIT[instruction]]
        assert user.lower().rstrip(".") in asked


def test_layouts_call_with_the_boxes_of_the_plan_and_look_at_nothing() -> None:
    for exchange in _exchanges("layout_to_image"):
        assert exchange.scene is None
        assert exchange.call.regions == exchange.plan.regions
        assert exchange.call.instruction == exchange.plan.names
        assert exchange.plan.words in exchange.user


def test_pictures_from_words_show_what_the_call_says() -> None:
    for exchange in _exchanges("generate_image"):
        assert exchange.scene is None and exchange.call.instruction == exchange.plan.words
        drawn = [f"{digit.color} {digit.digit}" for digit in exchange.result.digits]
        assert drawn == [planned.name for planned in exchange.plan.objects]
        assert exchange.plan.words in exchange.user


def test_layouts_and_pictures_are_asked_for_in_different_words() -> None:
    starts = {task: {exchange.user.lower().split()[0] for exchange in _exchanges(task)} for task in TASKS}
    assert not starts["layout_to_image"] & starts["generate_image"]
