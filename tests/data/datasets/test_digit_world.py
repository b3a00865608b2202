"""The digit world as a data set: deterministic, complete, and of the split it says."""

import numpy as np
import pytest

from mmunify.data.digit_world import handwriting
from mmunify.data.digit_world.conversations import prompt_of
from mmunify.data.digit_world.scene import draw_scene
from mmunify.data.digit_world.tasks import TASKS
from mmunify.errors import RecipeError
from mmunify.registry import DATASETS
from mmunify.types import Media, Output, Text


def _world(**kwargs):
    return DATASETS.build({"name": "digit_world", **kwargs})


def _plain(sample) -> list:
    """A sample with its pictures as bytes, so that two can be compared."""
    parts = [part for turn in sample.turns for part in turn.parts]
    pictures = [p.source if isinstance(p, Media) else p.target for p in parts if not isinstance(p, Text)]
    return [
        sample.id,
        sample.task,
        [p.text for p in parts if isinstance(p, Text)],
        [np.asarray(p).tobytes() for p in pictures],
    ]


def test_samples_are_the_same_in_any_order_and_process() -> None:
    first, second = _world(turns=3), _world(turns=3)
    assert [_plain(first[index]) for index in (7, 2)] == [_plain(second[index]) for index in (2, 7)][::-1]


def test_ids_are_unique_over_splits_and_seeds() -> None:
    worlds = [_world(), _world(split="test"), _world(seed=1)]
    assert len({world[index].id for world in worlds for index in range(5)}) == 15
    assert worlds[1][3].id == "digit_world-test-0-3" and worlds[0][0].source == "digit_world"


def test_all_tasks_are_there_and_answered() -> None:
    samples = [_world(seed=4)[index] for index in range(150)]
    assert {sample.task for sample in samples} == {*TASKS, "dialogue"}
    for sample in samples:
        assert [turn.role for turn in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2)
        assert all(turn.parts for turn in sample.turns)
        assert prompt_of(sample).turns[-1].role == "user"
        assert bool(sample.facts) == (sample.task != "dialogue")


@pytest.mark.parametrize("split", ["train", "test"])
def test_handwriting_is_of_the_split(split: handwriting.Split) -> None:
    allowed = set(handwriting.load_glyphs(split).sample.tolist())
    world = _world(split=split, tasks=["caption"], warp=1.0)
    assert {digit.sample for index in range(50) for digit in world[index].facts["scene"].digits} <= allowed


def test_the_picture_is_the_scene_of_the_facts() -> None:
    for size in (64, 96):
        sample = _world(tasks=["segment"], size=size)[1]
        picture = sample.turns[0].parts[0].source
        np.testing.assert_array_equal(picture, draw_scene(sample.facts["scene"]))
        assert picture.shape == (size, size, 3) and sample.facts["mask"].shape == (size, size)


def test_targets_of_pictures_from_words_have_the_scenes_size() -> None:
    (output,) = [p for p in _world(tasks=["generate_image"], size=96)[0].turns[1].parts if isinstance(p, Output)]
    assert output.target.shape == (96, 96, 3) and output.target.dtype == np.uint8


def test_length_bounds_the_indices() -> None:
    world = _world(length=3)
    assert len(world) == len([world[index] for index in range(3)])
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"sample {index} of a digit world with 3 samples"):
            world[index]


def test_recipes_are_checked_against_the_signature() -> None:
    with pytest.raises(RecipeError, match="DigitWorld takes no turn; did you mean .?turns"):
        _world(turn=3)
