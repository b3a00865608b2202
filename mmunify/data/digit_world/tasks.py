"""The tasks of the digit world: each makes one exchange, what a user asks of a scene and what the assistant answers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmunify.data.digit_world import edits, phrases
from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.layouts import Plan, draw_plan, draw_plan_scene
from mmunify.data.digit_world.questions import make_question
from mmunify.data.digit_world.referents import Referent, make_referent
from mmunify.data.digit_world.scene import COLORS, Scene
from mmunify.data.digit_world.words import article, ask, caption, choose, name_of
from mmunify.tokens import format_region
from mmunify.types import Region, TaskCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer, not yet put into turns.

    Attributes:
        task: name of the task.
        user: what the user says.
        opening: how the assistant begins.
        answer: what the assistant says; empty where it calls.
        call: the task call of the answer.
        kind: kind of question, of referent or of prompt, for breaking metrics down.
        subject: index of the digit that the exchange is about.
        scene: what the user looks at; None where no picture is needed.
        result: the scene after a region edit, or the one that was asked for.
        plan: the objects that were asked for, with their places.
    """

    task: str
    user: str
    opening: str = ""
    answer: str = ""
    call: TaskCall | None = None
    kind: str = ""
    subject: int | None = None
    scene: Scene | None = None
    result: Scene | None = None
    plan: Plan | None = None


Task = Callable[[Scene, np.random.Generator, Split], Exchange]
"""A scene (some tasks look at none), randomness and the split whose handwriting new digits take -> an exchange."""


def region_of(scene: Scene, index: int) -> Region:
    """The grounded region of a digit: its exact box and its name."""
    digit = scene.digits[index]
    return Region(box=digit.norm_box(scene.size), label=name_of(digit))


def describe(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Caption."""
    return Exchange(task="caption", user=ask(rng, phrases.CAPTION), answer=caption(scene), scene=scene)


def question(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Question with a short answer."""
    made = make_question(scene, rng)
    return Exchange(task="question", user=made.text, answer=made.answer, kind=made.kind, scene=scene)


def refer(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Box of a digit."""
    index, words, kind = make_referent(scene, rng)
    user, answer = ask(rng, phrases.REFER, what=words), format_region(region_of(scene, index))
    return Exchange(task="refer", user=user, answer=answer, kind=kind, subject=index, scene=scene)


def _region_call(
    task: str,
    user: str,
    referent: Referent,
    scene: Scene,
    rng: np.random.Generator,
    instruction: str = "",
    result: Scene | None = None,
) -> Exchange:
    """A call about one digit; without an instruction of its own it names the digit."""
    index, _, kind = referent
    region = region_of(scene, index)
    return Exchange(
        task=task,
        user=user,
        opening=choose(rng, phrases.OPENINGS),
        call=TaskCall(task=task, instruction=instruction or f"the {region.label}", regions=(region,)),
        kind=kind,
        subject=index,
        scene=scene,
        result=result,
    )


def segment(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Mask of a digit, by name or by reasoning."""
    referent = make_referent(scene, rng)
    return _region_call("segment", ask(rng, phrases.SEGMENT, what=referent[1]), referent, scene, rng)


def remove(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Take a digit away."""
    referent = make_referent(scene, rng)
    user = ask(rng, phrases.REMOVE, what=referent[1])
    return _region_call("remove", user, referent, scene, rng, result=edits.remove_digit(scene, referent[0]))


def recolor(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Give a digit another colour, so that no two digits become alike."""
    referent = make_referent(scene, rng)
    digit = scene.digits[referent[0]]
    taken = {other.color for other in scene.digits if other.digit == digit.digit}
    color = choose(rng, [color for color in COLORS if color not in taken])
    user = ask(rng, phrases.RECOLOR, what=referent[1], color=color)
    result = edits.recolor_digit(scene, referent[0], color)
    return _region_call("recolor", user, referent, scene, rng, color, result)


def swap(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Put another digit of the same colour in a digit's place, so that no two digits become alike."""
    referent = make_referent(scene, rng)
    taken = {other.digit for other in scene.digits if other.color == scene.digits[referent[0]].color}
    new = choose(rng, [str(digit) for digit in range(10) if digit not in taken])
    user = ask(rng, phrases.REPLACE, what=referent[1], digit=article(new))
    result = edits.replace_digit(scene, referent[0], int(new), rng, split)
    return _region_call("replace", user, referent, scene, rng, new, result)


def edit(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Change the whole picture."""
    instruction = choose(rng, list(phrases.EDIT))
    user, opening = ask(rng, phrases.EDIT[instruction]), choose(rng, phrases.OPENINGS)
    call = TaskCall(task="edit", instruction=instruction)
    return Exchange(task="edit", user=user, opening=opening, call=call, kind=instruction, scene=scene)


def lay_out(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """Boxes for objects that are asked for in words, by the rule of `layouts`; the scene is not looked at."""
    plan = draw_plan(rng)
    call = TaskCall(task="layout_to_image", instruction=plan.names, regions=plan.regions)
    user, opening = ask(rng, phrases.LAYOUT, what=plan.words), choose(rng, phrases.OPENINGS)
    return Exchange(task="layout_to_image", user=user, opening=opening, call=call, kind=plan.kind, plan=plan)


def generate(scene: Scene, rng: np.random.Generator, split: Split) -> Exchange:
    """A picture of what is asked for in words, drawn by the rule of `layouts`; the scene is not looked at."""
    plan = draw_plan(rng)
    return Exchange(
        task="generate_image",
        user=ask(rng, phrases.GENERATE, what=plan.words),
        opening=choose(rng, phrases.OPENINGS),
        call=TaskCall(task="generate_image", instruction=plan.words),
        kind=plan.kind,
        result=draw_plan_scene(plan, rng, split, scene.size),
        plan=plan,
    )


TASKS: dict[str, Task] = {
    "caption": describe,
    "question": question,
    "refer": refer,
    "segment": segment,
    "edit": edit,
    "remove": remove,
    "recolor": recolor,
    "replace": swap,
    "layout_to_image": lay_out,
    "generate_image": generate,
}
"""Name of a task -> what makes its exchanges."""
