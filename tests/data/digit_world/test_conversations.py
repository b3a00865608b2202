"""Conversations: pure functions of (seed, split, index), assembled into turns."""

import numpy as np
import pytest

from mmunify.data.digit_world import conversations
from mmunify.data.digit_world.conversations import Conversations, draw_clear_scene, make_sample, make_turns, prompt_of
from mmunify.data.digit_world.referents import sum_of_others
from mmunify.data.digit_world.scene import draw_scene
from mmunify.errors import DataError
from mmunify.types import Media, Output, Sample, Text, Turn


def _drafts(split="train", tasks=None, turns=1, seed=0, num_digits=(1, 2, 3, 4), size=64, warp=0.0) -> Conversations:
    return Conversations(split, tasks, turns, seed, num_digits, size, warp)


def test_drafts_depend_on_seed_split_and_index_alone() -> None:
    first, second = _drafts(), _drafts()
    assert [first[index] for index in (4, 0, 9)] == [second[4], second[0], second[9]]
    assert first[4] == first[4]
    others = [_drafts(seed=1)[4], _drafts("test")[4], first[5]]
    assert all(other != first[4] for other in others)


def test_digits_are_clearly_ordered_from_left_to_right() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = draw_clear_scene(rng, "train", (2, 3, 4))
        across = sorted((digit.box[0] + digit.box[2]) / 2 for digit in scene.digits)
        assert min(np.diff(across)) >= 1.5  # sums replace a digit, which may shift its centre by a pixel


def test_some_scenes_hold_the_sum_of_two_digits() -> None:
    rng = np.random.default_rng(0)
    scenes = [draw_clear_scene(rng, "train", (3,)) for _ in range(300)]
    assert 0.2 < np.mean([sum_of_others(scene) is not None for scene in scenes]) < 0.5


def test_numbers_of_digits() -> None:
    drafts = _drafts(tasks=["caption"], num_digits=(2, 4))
    assert {len(drafts[index].exchanges[0].scene.digits) for index in range(40)} == {2, 4}


def test_numbers_of_digits_hold_for_pictures_that_are_asked_for() -> None:
    drafts = _drafts(tasks=["generate_image", "layout_to_image"], num_digits=(1,), turns=2)
    plans = [exchange.plan for index in range(20) for exchange in drafts[index].exchanges]
    assert {len(plan.objects) for plan in plans} == {1}
    assert {plan.kind for plan in plans} == {"row", "places"}
    drafts = _drafts(tasks=["generate_image"])
    assert {len(drafts[index].exchanges[0].plan.objects) for index in range(40)} == {1, 2, 3, 4}


def test_weights_of_tasks() -> None:
    drafts = _drafts(tasks={"caption": 3.0, "refer": 1.0})
    captions = np.mean([drafts[index].task == "caption" for index in range(600)])
    assert abs(captions - 0.75) < 0.06


def test_several_turns_are_about_one_scene() -> None:
    draft = _drafts(tasks=["caption", "question", "remove"], turns=5)[3]
    assert draft.task == "multi" and len(draft.exchanges) == 5
    assert len({id(exchange.scene) for exchange in draft.exchanges}) == 1
    turns = make_turns(draft.exchanges, conversations.show_picture)
    assert [turn.role for turn in turns] == ["user", "assistant"] * 5
    assert sum(isinstance(part, Media) for turn in turns for part in turn.parts) == 1
    assert isinstance(turns[0].parts[0], Media)


def test_dialogues_keep_their_own_length() -> None:
    drafts = _drafts(tasks=["dialogue"], turns=2)
    assert {drafts[index].task for index in range(20)} == {"dialogue"}
    assert {len(drafts[index].exchanges) for index in range(20)} == {3, 4, 5}


def test_pictures_from_words_become_outputs_or_calls() -> None:
    draft = _drafts(tasks=["generate_image"])[0]
    sample = make_sample(draft, "a", "b")
    (output,) = [part for part in sample.turns[-1].parts if isinstance(part, Output)]
    np.testing.assert_array_equal(output.target, draw_scene(draft.exchanges[0].result))
    assert output.call == draft.exchanges[0].call
    assert [type(part) for turn in sample.turns[:1] for part in turn.parts] == [Text]
    (text,) = make_sample(draft, "a", "b", outputs=()).turns[-1].parts
    assert f"<generate_image>{output.call.instruction}</generate_image>" in text.text


def test_facts_belong_to_single_exchanges() -> None:
    assert make_sample(_drafts(tasks=["segment"])[0], "a", "b").facts["call"].task == "segment"
    assert make_sample(_drafts(turns=3)[0], "a", "b").facts == {}


def test_prompts_end_with_the_user() -> None:
    sample = make_sample(_drafts(tasks=["caption"], turns=2)[0], "a", "b")
    prompt = prompt_of(sample)
    assert prompt.turns == sample.turns[:-1] and prompt.id == "a"
    assert prompt_of(prompt) == prompt
    assert prompt_of(Sample(turns=(Turn(role="user", parts=()),))).turns[0].role == "user"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "val"}, r"unknown split 'val' of the digit world; choose one of \('train', 'test'\)"),
        ({"tasks": ["segmnt"]}, "no digit-world task 'segmnt'; did you mean 'segment'.*Known: caption"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": {"refer": 0}}, "weight 0 of digit-world task 'refer' must be positive"),
        ({"turns": 0}, "turns=0"),
        ({"num_digits": (1, 5)}, r"num_digits=\[1, 5\]: give one or more numbers from 1 to 4"),
        ({"num_digits": ()}, r"num_digits=\[\]"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _drafts(**settings)


def test_independent_turns_need_a_task_that_has_turns() -> None:
    assert all(
        _drafts(tasks=["dialogue", "refer"], turns=2)[index].task in ("dialogue", "multi") for index in range(20)
    )
