"""Dialogues: 3 to 5 turns that mix tasks, each true of the latest picture shown."""

from collections import Counter

import numpy as np

from mmunify.data.digit_world import dialogues
from mmunify.data.digit_world.conversations import draw_clear_scene
from mmunify.data.digit_world.tasks import TASKS


def _dialogue(seed: int):
    rng = np.random.default_rng(seed)
    return dialogues.draw_dialogue(draw_clear_scene(rng, "train", (1, 2, 3, 4)), rng, "train")


DIALOGUES = [_dialogue(seed) for seed in range(300)]


def test_length_and_variety() -> None:
    assert {len(dialogue) for dialogue in DIALOGUES} == {3, 4, 5}
    assert {exchange.task for dialogue in DIALOGUES for exchange in dialogue} == set(TASKS)
    mixed = [len({exchange.task for exchange in dialogue}) > 1 for dialogue in DIALOGUES]
    assert np.mean(mixed) > 0.9


def test_what_looks_at_no_picture_comes_last() -> None:
    for dialogue in DIALOGUES:
        assert all(exchange.scene is not None for exchange in dialogue[:-1])


def test_a_new_picture_shows_the_edit_before_it() -> None:
    shown = Counter()
    for dialogue in DIALOGUES:
        scenes = 0
        for before, after in zip(dialogue, dialogue[1:], strict=False):
            if after.scene is None or after.scene is before.scene:
                continue
            assert after.scene == before.result and after.scene.digits
            assert before.task in dialogues.REGION_EDITS
            scenes += 1
        assert scenes <= 1
        shown[scenes] += 1
    assert 20 < shown[1] < 150


def test_every_turn_is_true_of_the_picture_it_is_about() -> None:
    for exchange in (exchange for dialogue in DIALOGUES for exchange in dialogue if exchange.subject is not None):
        digit = exchange.scene.digits[exchange.subject]
        assert f"{digit.color} {digit.digit}" in (exchange.call.regions[0].label if exchange.call else exchange.answer)


def test_users_rarely_repeat_themselves() -> None:
    repeats = [len(d) - len({exchange.user.lower() for exchange in d}) for d in DIALOGUES]
    assert sum(repeats) < 0.01 * sum(map(len, DIALOGUES))
