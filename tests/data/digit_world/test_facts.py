"""Facts: what evaluation reads is the ground truth of the scene."""

import numpy as np

from mmunify.data.digit_world.edits import edit_picture
from mmunify.data.digit_world.facts import collect_facts
from mmunify.data.digit_world.scene import digit_mask, draw_scene, make_scene
from mmunify.data.digit_world.tasks import TASKS

SCENE = make_scene(np.random.default_rng(2), num_digits=3)


def _facts(task: str, **kwargs) -> dict:
    return collect_facts(TASKS[task](SCENE, np.random.default_rng(0), "train"), **kwargs)


def test_which_facts_a_task_has() -> None:
    looks = {"scene", "objects"}
    region = looks | {"kind", "call", "subject", "box", "mask"}
    assert set(_facts("caption")) == looks | {"answer"}
    assert set(_facts("question")) == looks | {"answer", "kind"}
    assert set(_facts("refer")) == region - {"call"} | {"answer"}
    assert set(_facts("segment")) == region
    assert all(set(_facts(task)) == region | {"target"} for task in ("remove", "recolor", "replace"))
    assert set(_facts("edit")) == looks | {"kind", "call", "target"}
    assert set(_facts("layout_to_image")) == {"kind", "call", "plan", "relations"}
    assert set(_facts("generate_image")) == {"kind", "call", "plan", "relations", "target"}


def test_without_pictures_nothing_is_drawn() -> None:
    assert not {"mask", "target"} & {name for task in TASKS for name in _facts(task, pictures=False)}


def test_objects_are_the_digits_of_the_scene() -> None:
    objects = _facts("caption")["objects"]
    assert [(o["digit"], o["color"]) for o in objects] == [(d.digit, d.color) for d in SCENE.digits]
    assert [o["box"] for o in objects] == [d.norm_box(64) for d in SCENE.digits]
    assert objects[0]["name"] == f"{SCENE.digits[0].color} {SCENE.digits[0].digit}"


def test_mask_and_box_belong_to_the_subject() -> None:
    facts = _facts("segment")
    np.testing.assert_array_equal(facts["mask"], digit_mask(SCENE, facts["subject"]))
    rows, columns = np.nonzero(facts["mask"])
    assert facts["box"] == (columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64)


def test_targets_are_the_edited_pictures() -> None:
    facts = _facts("edit")
    np.testing.assert_array_equal(facts["target"], edit_picture(draw_scene(SCENE), facts["call"].instruction))
    facts = _facts("remove")
    changed = (facts["target"] != draw_scene(SCENE)).any(-1)
    assert changed[facts["mask"]].mean() > 0.95 and changed.mean() < 0.15


def test_plans_hold_the_boxes_of_the_call() -> None:
    facts = _facts("layout_to_image")
    assert [o["box"] for o in facts["plan"]] == [region.box for region in facts["call"].regions]
    assert [o["name"] for o in facts["plan"]] == [region.label for region in facts["call"].regions]
