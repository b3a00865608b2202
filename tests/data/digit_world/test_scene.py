"""Scenes: exact ground truth, pure drawing, and the promises about placement."""

from dataclasses import replace

import numpy as np
import pytest

from mmunify.data.digit_world import handwriting, scene
from mmunify.data.digit_world.scene import COLORS, Scene, digit_mask, draw_scene, make_scene
from mmunify.errors import DataError

SPLITS: tuple[handwriting.Split, ...] = ("train", "test")
SCENES = [make_scene(np.random.default_rng(seed), SPLITS[seed % 2], warp=seed % 3 / 2) for seed in range(60)]


def test_same_seed_same_picture() -> None:
    first, second = (make_scene(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(draw_scene(first), draw_scene(second))
    assert make_scene(np.random.default_rng(6)) != first


def test_digits_are_distinct_apart_and_of_the_split() -> None:
    for seed, drawn in enumerate(SCENES):
        allowed = set(handwriting.load_glyphs(SPLITS[seed % 2]).sample.tolist())
        names = [(digit.digit, digit.color) for digit in drawn.digits]
        assert 1 <= len(names) == len(set(names)) <= scene.MAX_DIGITS
        assert all(digit.sample in allowed for digit in drawn.digits)
        cells = {((d.box[0] + d.box[2]) // 16, (d.box[1] + d.box[3]) // 16) for d in drawn.digits}
        assert len(cells) == len(names)


def test_boxes_are_tight_around_the_masks_and_masks_are_disjoint() -> None:
    for drawn in SCENES:
        masks = [digit_mask(drawn, index) for index in range(len(drawn.digits))]
        assert np.sum(masks, axis=0).max() <= 1
        for digit, mask in zip(drawn.digits, masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert digit.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert min(digit.box) >= 0 and digit.box[3] <= drawn.size
            assert digit.norm_box(drawn.size) == tuple(value / 64 for value in digit.box)


def test_masked_pixels_show_the_colour() -> None:
    for drawn in SCENES:
        picture = draw_scene(drawn)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        for index, digit in enumerate(drawn.digits):
            seen = np.median(picture[digit_mask(drawn, index)], axis=0)
            nearest = min(COLORS, key=lambda name: np.abs(seen - np.array(COLORS[name])).sum())
            assert nearest == digit.color


def test_editing_the_scene_changes_only_the_digit() -> None:
    drawn = make_scene(np.random.default_rng(1), num_digits=3)
    without = replace(drawn, digits=drawn.digits[1:])
    changed = (draw_scene(drawn) != draw_scene(without)).any(-1)
    x, y, size = drawn.digits[0].place
    assert changed[y : y + size, x : x + size].sum() == changed.sum() > 0
    assert (digit_mask(drawn, 0) & ~changed).sum() <= 2


def test_fit_digit_keeps_height_and_centre() -> None:
    for drawn in SCENES:
        digit = drawn.digits[0]
        fitted = scene.fit_digit(digit.sample, "blue", digit.box)
        assert fitted.color == "blue" and fitted.digit == digit.digit
        assert abs((fitted.box[3] - fitted.box[1]) - (digit.box[3] - digit.box[1])) <= 1
        assert (
            max(
                abs(a + b - c - d)
                for a, b, c, d in zip(fitted.box[:2], fitted.box[2:], digit.box[:2], digit.box[2:], strict=True)
            )
            <= 2
        )


def test_digits_outside_the_picture_are_cut_off() -> None:
    outside = scene.place_digit(0, "red", (-10, 60, 20))
    drawn = Scene(digits=(outside, scene.place_digit(0, "red", (90, 90, 20))))
    assert draw_scene(drawn).shape == (64, 64, 3)
    assert digit_mask(drawn, 0)[:60].sum() == 0 and digit_mask(drawn, 1).sum() == 0


def test_ink_without_warp_is_the_limit_of_small_warps() -> None:
    plain, warped = scene.draw_ink(3, 20), scene.draw_ink(3, 20, (1e-7, 0.0, 0.0))
    np.testing.assert_allclose(plain, warped, atol=1e-5)
    assert scene.draw_ink(3, 20, (0.0, 0.0, 0.1)).sum() > plain.sum()
    mirrored = scene.draw_ink(3, 20, (np.pi, 0.0, 0.0))
    np.testing.assert_allclose(mirrored, plain[::-1, ::-1], atol=1e-5)


def test_faults_name_the_value() -> None:
    with pytest.raises(DataError, match="'pink'"):
        scene.place_digit(0, "pink", (0, 0, 20))
    with pytest.raises(DataError, match="60 digits do not fit into 64 x 64"):
        make_scene(np.random.default_rng(0), num_digits=60)
