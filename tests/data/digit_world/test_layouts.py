"""Layouts: the rule from places to boxes, and prompts that say what the boxes do."""

import numpy as np
import pytest

from mmunify.data.digit_world import handwriting, layouts, phrases
from mmunify.data.digit_world.layouts import Planned, draw_plan, draw_plan_scene
from mmunify.evaluate.layout import score_relation

PLANS = [draw_plan(np.random.default_rng(seed)) for seed in range(300)]


def test_places_are_a_raster_of_boxes() -> None:
    boxes = [Planned(digit=7, color="red", place=place).box for place in phrases.PLACES]
    assert boxes[0] == (1 / 64, 1 / 64, 21 / 64, 21 / 64)
    assert boxes[4] == (22 / 64, 22 / 64, 42 / 64, 42 / 64)
    assert boxes[5] == (43 / 64, 22 / 64, 63 / 64, 42 / 64)
    middles = np.array([((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes]).reshape(3, 3, 2)
    assert (np.diff(middles[..., 0], axis=1) == 21 / 64).all() and (np.diff(middles[..., 1], axis=0) == 21 / 64).all()


def test_objects_are_distinct_and_have_their_own_places() -> None:
    for plan in PLANS:
        assert (
            len({planned.name for planned in plan.objects}) == len({p.place for p in plan.objects}) == len(plan.objects)
        )
    assert {plan.kind for plan in PLANS} == {"row", "places", "relation"}
    assert {len(plan.objects) for plan in PLANS} == {1, 2, 3, 4}


def test_words_name_the_objects_and_their_places() -> None:
    for plan in PLANS:
        assert all(planned.name in plan.words for planned in plan.objects)
        assert all((f"{p.name} {p.place}" in plan.words) == (plan.kind == "places") for p in plan.objects)
        assert [region.label for region in plan.regions] == [planned.name for planned in plan.objects]


def test_relations_hold_for_the_boxes_by_the_public_rule() -> None:
    asked = 0
    for plan in PLANS:
        boxes = [(planned.name, planned.box) for planned in plan.objects]
        for first, relation, second in plan.relations:
            assert score_relation(boxes, first, second, relation) is True
            asked += 1
    assert asked > 100


@pytest.mark.parametrize("relation", list(layouts.OPPOSITE))
def test_relation_prompts_ask_for_their_relation(relation: str) -> None:
    said = [plan for plan in PLANS if plan.kind == "relation" and phrases.RELATIONS[relation] in plan.words]
    assert said
    for plan in said:
        (first, found, second), *rest = plan.relations
        assert (found, rest) == (relation, [])
        assert plan.words.index(first) < plan.words.index(second)


def test_rows_ask_for_no_relation() -> None:
    assert all(plan.relations == [] for plan in PLANS if plan.kind == "row")


def test_scenes_put_the_digits_into_their_boxes() -> None:
    rng = np.random.default_rng(0)
    allowed = set(handwriting.load_glyphs("test").sample.tolist())
    for plan in PLANS[:60]:
        scene = draw_plan_scene(plan, rng, "test")
        assert scene.background == 0
        for planned, digit in zip(plan.objects, scene.digits, strict=True):
            assert (digit.digit, digit.color) == (planned.digit, planned.color) and digit.sample in allowed
            wanted = np.array(planned.box) * 64
            assert abs(digit.box[3] - digit.box[1] - 20) <= 2
            assert abs(digit.box[0] + digit.box[2] - wanted[0] - wanted[2]) <= 2
            assert abs(digit.box[1] + digit.box[3] - wanted[1] - wanted[3]) <= 3
