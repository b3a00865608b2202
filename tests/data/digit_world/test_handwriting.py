"""The handwriting split: committed, stratified, disjoint."""

import json

import numpy as np
import pytest

from mmunify.data.digit_world import handwriting
from mmunify.errors import DataError


def test_committed_lists_follow_the_rule() -> None:
    _, digits = handwriting._bundled()
    assert json.loads(handwriting.SPLIT_FILE.read_text()) == handwriting.split_samples(digits)


def test_splits_are_disjoint_and_cover_the_set() -> None:
    train, test = handwriting.load_glyphs("train"), handwriting.load_glyphs("test")
    together = np.concatenate([train.sample, test.sample])
    assert sorted(together.tolist()) == list(range(1797))
    for digit in range(10):
        share = (test.digit == digit).sum() / ((test.digit == digit).sum() + (train.digit == digit).sum())
        assert 0.22 < share < 0.26


def test_glyphs_match_single_access() -> None:
    glyphs = handwriting.load_glyphs("test")
    assert glyphs.ink.shape == (len(glyphs.sample), 8, 8) and glyphs.ink.dtype == np.float32
    assert glyphs.ink.min() == 0 and glyphs.ink.max() == 1
    np.testing.assert_array_equal(glyphs.ink[7], handwriting.ink(int(glyphs.sample[7])))
    assert glyphs.digit[7] == handwriting.written_digit(int(glyphs.sample[7]))
    assert handwriting.load_glyphs("test") is glyphs


@pytest.mark.parametrize("split", ["train", "test"])
def test_pick_draws_the_digit_from_its_split(split: handwriting.Split) -> None:
    rng, allowed = np.random.default_rng(0), set(handwriting.load_glyphs(split).sample.tolist())
    for digit in list(range(10)) * 5:
        sample = handwriting.pick(rng, digit, split)
        assert sample in allowed and handwriting.written_digit(sample) == digit


def test_wrong_requests_name_the_value() -> None:
    with pytest.raises(DataError, match="'valid'.*test.*train"):
        handwriting.load_glyphs("valid")
    with pytest.raises(DataError, match="digit 12.*0..9"):
        handwriting.pick(np.random.default_rng(0), 12)
