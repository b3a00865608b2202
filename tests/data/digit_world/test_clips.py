"""Moving digits: what is drawn is what the plan says, frame by frame."""

import numpy as np
import pytest

from mmunify.data.digit_world import handwriting
from mmunify.data.digit_world.clips import DIRECTIONS, Clip, Mover, clip_masks, draw_clip, make_clip
from mmunify.data.digit_world.scene import draw_background, place_digit
from mmunify.errors import DataError

PLOTS = ("stay", "leave", "enter")


def clips(plot, number=25, num_digits=2, **settings):
    rng = np.random.default_rng(5)
    return [make_clip(rng, plot, num_digits, **settings) for _ in range(number)]


def test_a_digit_moves_in_a_straight_line():
    digit = place_digit(handwriting.pick(np.random.default_rng(0), 7), "red", (20, 20, 20))
    for direction, (dx, dy) in DIRECTIONS.items():
        moved = Mover(digit=digit, direction=direction, speed=2.5).at(4)
        assert moved.place == (20 + 10 * dx, 20 + 10 * dy, 20)
        assert np.subtract(moved.box, digit.box).tolist() == [10 * dx, 10 * dy] * 2


@pytest.mark.parametrize("plot", PLOTS)
def test_frames_show_the_digits_where_the_masks_say(plot):
    for clip in clips(plot, 6):
        frames = draw_clip(clip)
        assert frames.shape == (8, 64, 64, 3) and frames.dtype == np.uint8
        still = (draw_background(clip.background, 64) + 0.5).astype(np.uint8)
        masks = [clip_masks(clip, index) for index in range(len(clip.movers))]
        changed = (frames != still).any(axis=-1)
        assert all((changed | ~mask).mean() > 0.999 for mask in masks)  # ink may happen to have the background's colour
        assert not (masks[0] & masks[1]).any()
        for index, mask in enumerate(masks):
            assert (mask.any(axis=(1, 2)) <= np.array(clip.visible(index))).all()


def test_staying_digits_stay_whole_and_move_a_way_that_can_be_seen():
    for clip in clips("stay"):
        for index, mover in enumerate(clip.movers):
            assert all(min(mover.at(f).box) >= 0 and max(mover.at(f).box) <= 64 for f in range(8))
            assert mover.speed * 7 >= 16
            assert (clip.leaves(index), clip.enters(index)) == (None, None)


@pytest.mark.parametrize(("plot", "event"), [("leave", "leaves"), ("enter", "enters")])
@pytest.mark.parametrize("num_digits", [2, 3])
def test_events_come_one_after_the_other(plot, event, num_digits):
    for clip in clips(plot, 10, num_digits):
        frames = sorted(getattr(clip, event)(index) for index in range(num_digits))
        assert np.diff(frames).min() >= 2 and frames[0] >= 1
        ends = [clip.visible(index)[0 if plot == "leave" else -1] for index in range(num_digits)]
        assert all(ends)


def test_order_and_directions_are_free():
    found = [clip.leaves(0) < clip.leaves(1) for clip in clips("leave", 60)]
    assert 15 < sum(found) < 45
    directions = [mover.direction for clip in clips("stay", 60) for mover in clip.movers]
    assert min(directions.count(direction) for direction in DIRECTIONS) > 10


def test_digits_never_touch_and_never_share_a_name():
    for plot in PLOTS:
        for clip in clips(plot, 10, 3):
            names = {(mover.digit.digit, mover.digit.color) for mover in clip.movers}
            assert len(names) == 3
            for frame in range(8):
                covered = np.zeros((200, 200), int)
                for mover in clip.movers:
                    x0, y0, x1, y1 = (max(value + 68, 0) for value in mover.at(frame).box)
                    covered[y0:y1, x0:x1] += 1
                assert covered.max() <= 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_handwriting_is_of_the_split(split):
    allowed = set(handwriting.load_glyphs(split).sample.tolist())
    used = {m.digit.sample for clip in clips("stay", 10, split=split, warp=1.0) for m in clip.movers}
    assert used <= allowed


def test_other_lengths_and_sizes():
    clip = make_clip(np.random.default_rng(0), "leave", 2, num_frames=5, size=96)
    assert draw_clip(clip).shape == (5, 96, 96, 3)
    assert draw_clip(Clip(movers=(), num_frames=1)).shape == (1, 64, 64, 3)
    assert make_clip(np.random.default_rng(0), "stay", 1, num_frames=1).num_frames == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="3 digits that leave one after the other need 7 frames"):
        make_clip(np.random.default_rng(0), "leave", 3, num_frames=6)
    with pytest.raises(DataError, match="4 digits cannot stay in 8 frames of 24 x 24"):
        make_clip(np.random.default_rng(0), "stay", 4, size=24)


@pytest.mark.parametrize("plot", PLOTS)
def test_the_plot_is_found_again(plot):
    assert {clip.plot for clip in clips(plot, 8)} == {plot}
