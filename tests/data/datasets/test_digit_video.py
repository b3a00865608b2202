"""Clips as a data set."""

import numpy as np
import pytest

from mmunify.data.datasets.digit_video import DigitVideo
from mmunify.data.digit_world.clip_questions import CLIP_KINDS
from mmunify.data.digit_world.clips import clip_masks, draw_clip
from mmunify.errors import DataError
from mmunify.registry import DATASETS


def test_samples():
    data = DATASETS.build({"name": "digit_video", "split": "test", "seed": 2})
    kinds = set()
    for index in range(40):
        sample = data[index]
        (clip, question), (answer,) = (turn.parts for turn in sample.turns)
        facts = sample.facts
        kinds.add(facts["kind"])
        assert clip.kind == "video" and question.text and answer.text == facts["answer"]
        np.testing.assert_array_equal(clip.source, draw_clip(facts["clip"]))
        if "subject" in facts:
            np.testing.assert_array_equal(facts["masks"], clip_masks(facts["clip"], facts["subject"]))
            assert facts["masks"].shape == (8, 64, 64)
        assert (sample.task, sample.source) == ("video_question", "digit_video")
    assert kinds == set(CLIP_KINDS)


def test_a_sample_is_a_function_of_seed_split_and_index():
    first, second = DigitVideo()[7], DigitVideo(length=8)[7]
    np.testing.assert_array_equal(first.turns[0].parts[0].source, second.turns[0].parts[0].source)
    assert first.id == second.id == "digit_video-train-0-7"
    assert DigitVideo("test")[7].facts["clip"] != first.facts["clip"] != DigitVideo(seed=1)[7].facts["clip"]


def test_kinds_and_sizes():
    data = DigitVideo(kinds={"leaves_first": 1.0}, num_digits=[2], num_frames=6, size=80)
    sample = data[0]
    assert sample.facts["kind"] == "leaves_first" and sample.turns[0].parts[0].source.shape == (6, 80, 80, 3)


def test_wrong_settings():
    with pytest.raises(DataError, match="no kind of clip question named 'directoin'; did you mean 'direction'"):
        DigitVideo(kinds=["directoin"])
    with pytest.raises(DataError, match="unknown split 'dev'"):
        DigitVideo("dev")
    with pytest.raises(DataError, match=r"num_digits=\[7\]"):
        DigitVideo(num_digits=[7])
    with pytest.raises(IndexError, match="sample 2 of a digit video set with 2 samples"):
        DigitVideo(length=2)[2]
    assert len(DigitVideo(length=2)) == 2


def test_questions_call_digits_by_number_or_colour_where_that_is_enough():
    for naming, index in (("number", 1), ("color", 0)):
        data = DigitVideo(kinds=["direction"], num_digits=[3], turns=3, named=[naming])
        short = 0
        for sample in (data[i] for i in range(20)):
            names = [(m.digit.color, m.digit.digit) for m in sample.facts["clip"].movers]
            for turn in sample.turns[::2]:
                words = turn.parts[-1].text.strip("?").split()
                meant = [name for name in names if str(name[index]) in words]
                full = [name for name in meant if {name[0], str(name[1])} <= set(words)]
                assert len(full or meant) == 1
                short += not full
        assert short > 20
    with pytest.raises(DataError, match=r"named wants one or more of full, number, color; got \['colour'\]"):
        DigitVideo(named=["colour"])


def test_several_questions_share_one_clip():
    data, lengths = DigitVideo(turns=4, num_digits=[2, 3]), []
    for index in range(12):
        sample = data[index]
        words = [turn.parts[-1].text for turn in sample.turns]
        pairs = list(zip(words[::2], words[1::2], strict=True))
        lengths.append(len(pairs))
        assert [len(turn.parts) for turn in sample.turns] == [2] + [1] * (len(words) - 1)
        clip = sample.facts["clip"]
        for asked, answer in pairs:
            named = [m for m in clip.movers if f"{m.digit.color} {m.digit.digit}" in asked]
            if named:
                assert [f"{m.digit.color} {m.digit.digit}[{m.direction}]" for m in named] == [answer]
        assert len({asked.lower().strip("?") for asked, _ in pairs}) == len(pairs)
        assert sample.task == "multi" and "answer" not in sample.facts
    assert max(lengths) == 4 and min(lengths) >= 2
