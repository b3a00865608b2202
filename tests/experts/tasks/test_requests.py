import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.data.digit_world.layouts import draw_plan
from mmunify.experts.tasks._requests import bare, find_number, lay_out


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", "8"), ("an eight", "8"), ("replace the 7 by a 12", "12"), ("a star", None), ("someone", None)],
)
def test_the_last_number_counts(text, number):
    assert find_number(text) == number


def test_layouts_of_the_digit_world_are_read_from_their_words():
    rng = np.random.default_rng(0)
    for _ in range(200):
        plan = draw_plan(rng)
        made = lay_out(plan.words)
        assert [region.label for region in made] == [planned.name for planned in plan.objects], plan.words
        assert [region.box for region in made] == [planned.box for planned in plan.objects], plan.words


def test_other_prompts_give_their_phrases():
    made = lay_out("a cat at the bottom right, two dogs and a tree")
    assert [region.label for region in made] == ["a cat at the bottom right", "two dogs", "a tree"]
    assert made[0].box == (43 / 64, 43 / 64, 63 / 64, 63 / 64)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_prompt_has_between_one_and_nine_boxes_inside_the_picture(prompt):
    made = lay_out(prompt)
    assert 1 <= len(made) <= 9 and len({region.box for region in made}) == len(made)
    assert all(0 <= edge <= 1 for region in made for edge in region.box)


def test_articles_are_no_part_of_a_thing():
    assert bare("a star ") == "star" and bare("The moon") == "moon" and bare("apple") == "apple"
