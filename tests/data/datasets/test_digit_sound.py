"""Dialled numbers as a data set."""

import numpy as np
import pytest

from mmunify.data.datasets.digit_sound import TONE_PHRASES, DigitSound
from mmunify.data.digit_world.tones import draw_sound
from mmunify.data.digit_world.words import WORD, vocabulary
from mmunify.data.sound import read_sound
from mmunify.errors import DataError
from mmunify.registry import DATASETS


def test_samples():
    data = DATASETS.build({"name": "digit_sound", "split": "test", "kinds": ["number", "count"], "snr": [20, 20]})
    kinds = set()
    for index in range(30):
        sample = data[index]
        (heard, question), (answer,) = (turn.parts for turn in sample.turns)
        dialling = sample.facts["dialling"]
        kinds.add(sample.facts["kind"])
        sound = read_sound(heard.source)
        assert (heard.kind, sound.rate, sound.seconds) == ("audio", 8000, 2.0)
        np.testing.assert_array_equal(sound.samples[0], draw_sound(dialling))
        wanted = dialling.number if sample.facts["kind"] == "number" else str(len(dialling.presses))
        assert answer.text == sample.facts["answer"] == wanted and question.text
        assert dialling.snr == 20 and -30 <= dialling.level <= -10
        assert set(WORD.findall(answer.text)) <= set(vocabulary())
        assert sample.task == "dialled_number"
    assert kinds == {"number", "count"}


def test_a_sample_is_a_function_of_seed_split_and_index():
    first = DigitSound()[3]
    assert first.facts["dialling"] == DigitSound()[3].facts["dialling"]
    assert (
        len({DigitSound(split, seed=seed)[3].facts["dialling"] for split in ("train", "test") for seed in (0, 1)}) == 4
    )
    assert first.id == "digit_sound-train-0-3"


def test_all_digits_are_dialled():
    numbers = [DigitSound(num_digits=[4])[index].facts["answer"].split() for index in range(60)]
    counts = np.bincount([int(digit) for number in numbers for digit in number], minlength=10)
    assert counts.min() > 8 and all(len(number) == 4 for number in numbers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"kinds": ["nmuber"]}, "did you mean 'number'"),
        ({"num_digits": [1, 8]}, r"num_digits=\[1, 8\]: 2.0 s have room for 1 to 7 digits"),
        ({"num_digits": []}, "have room for"),
        ({"snr": [30.0, 10.0]}, r"snr=\[30.0, 10.0\]: give the lowest and the highest"),
        ({"level": [1.0]}, "level"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(DataError, match=message):
        DigitSound(**settings)


def test_length_bounds_the_indices():
    assert len(DigitSound(length=2)) == 2
    with pytest.raises(IndexError, match="sample -1 of a digit sound set with 2 samples"):
        DigitSound(length=2)[-1]


def test_several_questions_share_one_sound():
    data = DigitSound(turns=4, kinds=list(TONE_PHRASES))
    for index in range(6):
        sample = data[index]
        number = sample.facts["dialling"].number
        answers = [turn.parts[-1].text for turn in sample.turns[1::2]]
        assert sorted(answers) == sorted([number, str(len(number.split())), number[0], number[-1]])
        assert [len(turn.parts) for turn in sample.turns] == [2] + [1] * 7
        assert sample.task == "multi" and list(sample.facts) == ["dialling"]
    assert len(DigitSound(turns=2, kinds=list(TONE_PHRASES))[0].turns) == 4


def test_order_questions():
    for kind, place in (("first", 0), ("last", -1)):
        facts = DigitSound(kinds=[kind], num_digits=[3])[5].facts
        assert facts["answer"] == str(facts["dialling"].presses[place].digit)
