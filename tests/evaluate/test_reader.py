"""The independent reader on pictures whose content is known."""

import numpy as np
import pytest

from mmunify.data.digit_world.scene import COLORS, draw_background, draw_scene, make_scene
from mmunify.data.digit_world.words import name_of
from mmunify.evaluate import reader


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [make_scene(rng, "test") for _ in range(40)]


def test_digits_and_colours_are_read_in_their_boxes(scenes):
    pairs = [
        (reader.read_box(draw_scene(scene), digit.norm_box(64)), digit) for scene in scenes for digit in scene.digits
    ]
    assert np.mean([found is not None and found.color == digit.color for found, digit in pairs]) == 1.0
    assert np.mean([found is not None and found.digit == digit.digit for found, digit in pairs]) > 0.95


def test_digits_are_found_without_boxes(scenes):
    exact = [
        sorted(found.name for found in reader.find_digits(draw_scene(scene))) == sorted(map(name_of, scene.digits))
        for scene in scenes
    ]
    assert np.mean(exact) > 0.85


def test_found_boxes_are_tight(scenes):
    digit = scenes[0].digits[0]
    found = reader.read_box(draw_scene(scenes[0]), digit.norm_box(64))
    assert found.box == pytest.approx(digit.norm_box(64), abs=2.5 / 64)


def test_a_digit_that_reaches_beyond_its_box_is_read_whole(scenes):
    scene = next(scene for scene in scenes if scene.digits[0].digit not in (1, 7))
    digit = scene.digits[0]
    x0, y0, x1, y1 = digit.norm_box(64)
    inner = (x0 + (x1 - x0) / 4, y0, x1 - (x1 - x0) / 4, y1)
    assert reader.read_box(draw_scene(scene), inner).box == pytest.approx((x0, y0, x1, y1), abs=2.5 / 64)


def test_backgrounds_are_empty():
    for seed in range(50):
        picture = (draw_background(seed) + 0.5).astype(np.uint8)
        assert reader.find_digits(picture) == []
        assert reader.read_box(picture, (0.25, 0.25, 0.5, 0.5)) is None


@pytest.mark.parametrize("color", list(COLORS))
def test_a_colour_mixed_with_grey_keeps_its_name(color):
    mixed = (0.6 * np.array(COLORS[color]) + 0.4 * 128).astype(np.uint8)
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[20:40, 28:32] = mixed
    assert [found.color for found in reader.find_digits(picture)] == [color]


def test_boxes_at_and_beyond_the_edge_stay_inside():
    picture = np.full((8, 8, 3), 128, np.uint8)
    assert reader.read_box(picture, (0.9, 0.9, 1.4, 1.4)) is None
    assert reader.box_mask((0.99, 0.99, 1.0, 1.0), (8, 8)).sum() == 1
    assert reader.box_mask((0.0, 0.0, 1.0, 1.0), (8, 8)).all()
