import json
from importlib.resources import files

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmunify.experts.tasks import _glyphs
from mmunify.experts.tasks._glyphs import draw_number, draw_words, paste_ink


def test_only_handwriting_of_the_training_split_is_drawn():
    split = json.loads(files("mmunify").joinpath("assets", "tiny", "handwriting_split.json").read_text())
    assert sum(len(samples) for samples in _glyphs._handwriting().values()) == len(split["train"])
    tests = {image.tobytes() for image in (load_digits().images[split["test"]] / 16).astype(np.float32)}
    drawn = [sample.tobytes() for samples in _glyphs._handwriting().values() for sample in samples]
    assert sum(sample in tests for sample in drawn) == 0


@pytest.mark.parametrize("height", [5, 20, 100])
@pytest.mark.parametrize("number", ["7", "10", "2024"])
def test_numbers_have_the_height_that_was_asked_for(number, height):
    ink = draw_number(number, height, np.random.default_rng(0))
    assert ink.shape[0] == height and ink.min() >= 0 and ink.max() > 0.9
    assert (ink > 0.5).any(1)[[0, -1]].sum() >= 1


def test_the_seed_chooses_the_handwriting():
    first, again, other = (draw_number("3", 20, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_words_fit_their_place():
    ink = draw_words("a rather long label", 40, 90)
    assert ink.shape[0] <= 40 and ink.shape[1] <= 90 and ink.max() > 0.8


def test_any_string_can_be_printed():
    assert draw_words("\ud800 \x00 \n 漢字", 12, 200).ndim == 2


def test_pasting_cuts_at_the_edges_and_blends():
    picture = np.zeros((10, 10, 3), np.uint8)
    paste_ink(picture, np.ones((4, 4), np.float32), (0, 0), (200, 100, 0))
    assert tuple(picture[1, 1]) == (184, 92, 0) and not picture[2:].any() and not picture[:, 2:].any()
    before = picture.copy()
    paste_ink(picture, np.ones((4, 4), np.float32), (50, -50), (200, 100, 0))
    assert np.array_equal(picture, before)
