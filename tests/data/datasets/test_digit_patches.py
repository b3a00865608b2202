"""Patch labels: every patch whose centre lies in a box says whose box it is."""

import numpy as np
import pytest

from mmunify.data.datasets.digit_patches import DigitPatches, label_patches
from mmunify.data.digit_world.scene import COLORS, Digit, Scene
from mmunify.errors import DataError
from mmunify.types import Media, Output


def test_labels_of_a_scene() -> None:
    digit = Digit(digit=7, color="blue", box=(4, 12, 20, 30), sample=0, place=(4, 12, 18))
    labels = label_patches(Scene(digits=(digit,))).reshape(8, 8, 7)
    inside = np.zeros((8, 8), dtype=bool)
    inside[1:4, 0:2] = True  # centres at y = 12, 20, 28 and x = 4, 12
    np.testing.assert_array_equal(labels[..., 0] == 1, inside)
    expected = [1, 7, list(COLORS).index("blue"), 4 / 64, 12 / 64, 20 / 64, 30 / 64]
    np.testing.assert_allclose(labels[inside], np.tile(expected, (6, 1)))
    assert (labels[~inside] == 0).all()


def test_labels_do_not_depend_on_the_size_of_the_picture() -> None:
    small = Digit(digit=2, color="red", box=(8, 8, 24, 28), sample=0, place=(8, 8, 20))
    large = Digit(digit=2, color="red", box=(16, 16, 48, 56), sample=0, place=(16, 16, 40))
    np.testing.assert_array_equal(
        label_patches(Scene(digits=(small,))), label_patches(Scene(digits=(large,), size=128))
    )


def test_samples() -> None:
    data = DigitPatches("test", seed=1, length=50, num_digits=[2, 3], warp=0.5)
    for index in range(50):
        sample = data[index]
        (media,), (output,) = (turn.parts for turn in sample.turns)
        assert isinstance(media, Media) and isinstance(output, Output) and output.kind == "patches"
        assert media.source.shape == (64, 64, 3) and output.target.shape == (64, 7)
        assert output.target.dtype == np.float32
        found = {tuple(row) for row in output.target[output.target[:, 0] == 1, 1:3].astype(int).tolist()}
        scene = sample.facts["scene"]
        assert found == {(d.digit, list(COLORS).index(d.color)) for d in scene.digits} and len(found) in (2, 3)


def test_the_same_index_gives_the_same_sample() -> None:
    first, second = DigitPatches()[7], DigitPatches()[7]
    np.testing.assert_array_equal(first.turns[0].parts[0].source, second.turns[0].parts[0].source)
    assert first.id == second.id == "digit_patches-train-0-7"
    assert DigitPatches("test")[7].facts["scene"] != first.facts["scene"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(DataError, match="unknown split 'dev'"):
        DigitPatches("dev")
    with pytest.raises(DataError, match=r"num_digits=\[0\]"):
        DigitPatches(num_digits=[0])
    with pytest.raises(IndexError, match="sample 9 of a patch set with 9 samples"):
        DigitPatches(length=9)[9]
