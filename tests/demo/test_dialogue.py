"""The demo's conversation with a stand-in for the assistant."""

import numpy as np
import pytest

from mmunify.data.digit_world.edits import remove_digit
from mmunify.data.digit_world.scene import digit_mask, draw_scene
from mmunify.demo.dialogue import hold_dialogue, make_scene, plan_dialogue
from mmunify.infer.assistant import Assistant
from mmunify.types import Artifact, Region, Reply, TaskCall

SCENE = make_scene()
STEPS = {step.title: step for step in plan_dialogue(SCENE)}
CALL = TaskCall(task="edit", instruction="x")


def reply(data=None, **fields):
    made = (
        ()
        if data is None
        else (Artifact(kind="mask" if data.ndim == 2 else "image", data=data, call=CALL, producer="t"),)
    )
    return Reply(**{"text": "", "artifacts": made, **fields})


def test_the_scene_is_the_same_every_time_and_has_three_digits():
    assert make_scene() == SCENE
    assert len(SCENE.digits) == len({digit.color for digit in SCENE.digits}) == 3


def test_the_dialogue_asks_for_what_the_demo_promises():
    assert list(STEPS) == ["question", "box", "mask", "removal", "picture"]
    for title, digit in (("mask", 0), ("box", 1), ("removal", 2)):
        assert f"{SCENE.digits[digit].color} {SCENE.digits[digit].digit}" in STEPS[title].prompt


@pytest.mark.parametrize(("text", "begin"), [("3", "right"), ("3.", "right"), ("4", "wrong"), ("", "wrong")])
def test_answers_are_compared(text, begin):
    assert STEPS["question"].judge(reply(text=text)) == f"{begin}: the answer is 3"


def test_boxes_and_masks_are_measured():
    box = SCENE.digits[1].norm_box(SCENE.size)
    assert STEPS["box"].judge(reply(regions=(Region(box=box),))).endswith("1.00")
    assert STEPS["box"].judge(reply()) == "wrong: no box"
    assert STEPS["mask"].judge(reply(digit_mask(SCENE, 0))).endswith("1.00")
    assert STEPS["mask"].judge(reply(~digit_mask(SCENE, 0))).endswith("0.00")
    assert STEPS["mask"].judge(reply(draw_scene(SCENE))) == "wrong: no mask was made"


def test_removals_are_read():
    assert STEPS["removal"].judge(reply(draw_scene(remove_digit(SCENE, 2)))).startswith("right")
    assert STEPS["removal"].judge(reply(draw_scene(SCENE))).startswith("wrong: the reader still sees")
    assert STEPS["removal"].judge(reply(draw_scene(remove_digit(SCENE, 0)))).startswith("wrong")
    assert STEPS["removal"].judge(reply()) == "wrong: no picture was made"


def test_pictures_are_read():
    assert STEPS["picture"].judge(reply(np.full((64, 64, 3), 99, np.uint8))) == "wrong: the reader finds nothing"
    assert STEPS["picture"].judge(reply()) == "wrong: no picture was made"


def test_the_scene_is_shown_once_and_every_turn_is_judged(tmp_path):
    heard = []

    class Scripted(Assistant):
        def __init__(self):
            self.saved = [tmp_path / "a.png"]

        def reply(self, prompt, image=None, max_new_tokens=0, out=None):
            heard.append((prompt, image is not None, out))
            return reply(text="3")

    exchanges = hold_dialogue(Scripted(), SCENE, tmp_path)
    assert [shown for _, shown, _ in heard] == [True, False, False, False, False]
    assert [exchange.prompt for exchange in exchanges] == [step.prompt for step in STEPS.values()]
    assert exchanges[0].verdict == "right: the answer is 3"
    assert exchanges[0].files == (tmp_path / "a.png",)
