"""The digit world in words: the same conversations as with pictures, and no picture in them."""

import pytest

from mmunify.data.datasets.digit_text import DigitText
from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.data.digit_world.words import scene_text
from mmunify.types import Media, Output, Sample, Text


def _texts(sample: Sample) -> list[str]:
    return ["".join(part.text for part in turn.parts if isinstance(part, Text)) for turn in sample.turns]


def test_everything_is_text() -> None:
    data = DigitText(seed=2)
    parts = [part for index in range(100) for turn in data[index].turns for part in turn.parts]
    assert {type(part) for part in parts} == {Text}


@pytest.mark.parametrize("settings", [{"tasks": ["question"]}, {"turns": 4}, {"tasks": ["dialogue"]}])
def test_samples_say_what_the_digit_world_says(settings: dict) -> None:
    told, seen = DigitText(**settings), DigitWorld(**settings)
    for index in range(20):
        one, other = told[index], seen[index]
        assert (one.task, len(one.turns)) == (other.task, len(other.turns))
        for words, turn in zip(_texts(one), other.turns, strict=True):
            said = "".join(part.text for part in turn.parts if isinstance(part, Text))
            assert words.endswith(said) or any(isinstance(part, Output) for part in turn.parts)
            shown = any(isinstance(part, Media) for part in turn.parts)
            assert words.startswith("scene: ") == shown


def test_the_scene_comes_before_the_question() -> None:
    told, seen = DigitText("test", ["question"]), DigitWorld("test", ["question"])
    for index in range(10):
        facts = seen[index].facts
        question, answer = _texts(told[index])
        assert question.startswith(scene_text(facts["scene"]) + " ")
        assert answer == facts["answer"] == told[index].facts["answer"]


def test_requests_for_pictures_are_calls() -> None:
    _, answer = _texts(DigitText(tasks=["generate_image"])[0])
    assert "<generate_image>" in answer and answer.endswith("</generate_image>")
    assert "target" not in DigitText(tasks=["generate_image"])[0].facts


def test_length_bounds_the_indices() -> None:
    data = DigitText(length=2)
    assert len(data) == 2
    with pytest.raises(IndexError, match="sample 2 of a digit text with 2 samples"):
        data[2]
