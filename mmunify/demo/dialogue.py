"""The demo's conversation: five turns about one test scene, each judged by ground truth or by the reader."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mmunify.data.digit_world.conversations import draw_clear_scene
from mmunify.data.digit_world.layouts import Plan, draw_plan
from mmunify.data.digit_world.scene import Digit, Scene, digit_mask, draw_scene
from mmunify.data.digit_world.words import name_of
from mmunify.evaluate.reader import find_digits, read_box
from mmunify.evaluate.scores import box_iou, exact_match, mask_overlap
from mmunify.infer.assistant import Assistant
from mmunify.types import Box, Reply

SEED = 7
"""Of the scene and of the picture that is asked for; fixed beforehand, not chosen by how well a model answers."""

MAX_NEW_TOKENS = 48
"""Of one reply: twice what a right one needs; five of them and two pictures fit into the recipe's longest sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A turn to come: what to say, and how to judge the reply in one line."""

    title: str
    prompt: str
    judge: Callable[[Reply], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A turn that was held, with the files that its experts left."""

    title: str
    prompt: str
    reply: Reply
    verdict: str
    files: tuple[Path, ...] = ()


def make_scene() -> Scene:
    """A scene of three digits of three colours, in test handwriting."""
    rng = np.random.default_rng(SEED)
    while True:
        scene = draw_clear_scene(rng, "test", [3])
        if len({digit.color for digit in scene.digits}) == 3:
            return scene


def plan_dialogue(scene: Scene) -> list[Step]:
    """A question, a box, a mask, a removal, and a picture from words."""
    first, second, third = scene.digits[:3]
    plan = draw_plan(np.random.default_rng(SEED))
    mask = digit_mask(scene, 0)
    return [
        Step(
            title="question", prompt="How many digits are there?", judge=partial(judge_answer, str(len(scene.digits)))
        ),
        Step(
            title="box",
            prompt=f"Where is the {name_of(second)}?",
            judge=partial(judge_box, second.norm_box(scene.size)),
        ),
        Step(title="mask", prompt=f"Segment the {name_of(first)}.", judge=partial(judge_mask, mask)),
        Step(
            title="removal",
            prompt=f"Remove the {name_of(third)}.",
            judge=partial(judge_removal, third, third.norm_box(scene.size)),
        ),
        Step(title="picture", prompt=f"Generate an image of {plan.words}.", judge=partial(judge_picture, plan)),
    ]


def hold_dialogue(assistant: Assistant, scene: Scene, folder: Path) -> list[Exchange]:
    """Hold the conversation; the scene is shown once, at its beginning.

    Args:
        assistant: a fresh one.
        scene: that the conversation is about.
        folder: for the masks and pictures that experts make.
    """
    exchanges = []
    for step in plan_dialogue(scene):
        shown = draw_scene(scene) if not exchanges else None
        reply = assistant.reply(step.prompt, image=shown, max_new_tokens=MAX_NEW_TOKENS, out=folder)
        exchanges.append(
            Exchange(
                title=step.title,
                prompt=step.prompt,
                reply=reply,
                verdict=step.judge(reply),
                files=tuple(assistant.saved),
            )
        )
    return exchanges


# ------------------------------------------------------------------------------------------- judging


def judge_answer(truth: str, reply: Reply) -> str:
    """Compare words."""
    return f"{'right' if exact_match(reply.text, truth) else 'wrong'}: the answer is {truth}"


def judge_box(truth: Box, reply: Reply) -> str:
    """Overlap of the first box."""
    box = next((region.box for region in reply.regions if region.box is not None), None)
    return "wrong: no box" if box is None else f"IoU with the true box: {box_iou(box, truth):.2f}"


def judge_mask(truth: np.ndarray, reply: Reply) -> str:
    """Overlap of the last mask."""
    mask = _last(reply, "mask")
    if mask is None:
        return "wrong: no mask was made"
    inside, union = mask_overlap(mask, truth)
    return f"IoU with the true mask: {inside / union:.2f}"


def judge_removal(digit: Digit, box: Box, reply: Reply) -> str:
    """Whether the reader still finds something where the digit was."""
    picture = _last(reply, "image")
    if picture is None:
        return "wrong: no picture was made"
    left = read_box(picture, box)
    return f"wrong: the reader still sees {left.name}" if left else f"right: the reader sees no {name_of(digit)}"


def judge_picture(plan: Plan, reply: Reply) -> str:
    """What the reader finds in the picture, beside what was asked for."""
    picture, wanted = _last(reply, "image"), sorted(planned.name for planned in plan.objects)
    if picture is None:
        return "wrong: no picture was made"
    found = sorted(item.name for item in find_digits(picture))
    return f"{'right' if found == wanted else 'wrong'}: the reader finds {', '.join(found) or 'nothing'}"


def _last(reply: Reply, kind: str) -> np.ndarray | None:
    return next((made.data for made in reversed(reply.artifacts) if made.kind == kind), None)
