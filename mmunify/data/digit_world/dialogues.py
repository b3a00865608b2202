"""Dialogues: several turns about one picture that mix tasks.

One rule for every conversation of the digit world: a turn is about the latest picture that the user has shown. An edit
answers with a call and shows nothing by itself; now and then the user then shows the edited picture, and what follows
is about that one. Requests that look at no picture (layouts, pictures from words) come last.
"""

from collections.abc import Collection, Sequence

import numpy as np

from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.scene import MAX_DIGITS, Scene
from mmunify.data.digit_world.tasks import TASKS, Exchange
from mmunify.data.digit_world.words import choose

TURNS = (3, 5)
"""Fewest and most turns of a dialogue."""

TALK = ("question", "question", "caption", "refer", "segment")
REGION_EDITS = ("remove", "recolor", "replace")
LAST = (*REGION_EDITS, "edit", "segment", "layout_to_image", "generate_image")

EDIT_RATE = 0.25
"""How often a turn before the last one is a region edit."""

SHOW_RATE = 0.5
"""How often an edited picture is shown before the next turn, once per dialogue."""

REDRAWS = 4
"""How often an exchange is drawn again when the user has already said the same words."""


def draw_exchange(
    scene: Scene,
    rng: np.random.Generator,
    split: Split,
    task: str,
    before: Sequence[Exchange] = (),
    num_digits: Collection[int] = range(1, MAX_DIGITS + 1),
) -> Exchange:
    """An exchange of a task whose question has, if possible, not been asked before.

    Args:
        scene: what the user looks at.
        rng: all randomness comes from here.
        split: whose handwriting new digits take.
        task: its name.
        before: exchanges of the same conversation.
        num_digits: numbers of digits that a user may ask for, where a picture is made from words.
    """
    said = {exchange.user.lower() for exchange in before}
    exchange = _asked(scene, rng, split, task, num_digits)
    for _ in range(REDRAWS):
        if exchange.user.lower() not in said:
            break
        exchange = _asked(scene, rng, split, task, num_digits)
    return exchange


def _asked(scene: Scene, rng: np.random.Generator, split: Split, task: str, num_digits: Collection[int]) -> Exchange:
    while True:
        exchange = TASKS[task](scene, rng, split)
        if exchange.plan is None or len(exchange.plan.objects) in num_digits:
            return exchange


def draw_dialogue(scene: Scene, rng: np.random.Generator, split: Split) -> list[Exchange]:
    """Exchanges of one dialogue; where their scene changes, the user shows the new picture."""
    turns = int(rng.integers(TURNS[0], TURNS[1] + 1))
    exchanges: list[Exchange] = []
    for turn in range(turns):
        task = _draw_task(rng, last=turn == turns - 1)
        exchanges.append(draw_exchange(scene, rng, split, task, exchanges))
        scene = _next_scene(scene, exchanges, rng)
    return exchanges


def _draw_task(rng: np.random.Generator, last: bool) -> str:
    if last:
        return choose(rng, LAST)
    return choose(rng, REGION_EDITS if rng.random() < EDIT_RATE else TALK)


def _next_scene(scene: Scene, exchanges: list[Exchange], rng: np.random.Generator) -> Scene:
    """The scene that the next turn is about: the edited one if the user shows it."""
    result, first = exchanges[-1].result, exchanges[0].scene
    if exchanges[-1].task not in REGION_EDITS or result is None or not result.digits or scene is not first:
        return scene
    return result if rng.random() < SHOW_RATE else scene
