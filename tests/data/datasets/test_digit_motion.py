"""Labels of places: found again in the masks of the clip."""

import numpy as np
import pytest

from mmunify.data.datasets.digit_motion import NOTHING, UNKNOWN, DigitMotion, label_movers, label_places
from mmunify.data.digit_world.clip_questions import in_order
from mmunify.data.digit_world.clips import DIRECTIONS, PLOTS, Clip, Mover, clip_masks
from mmunify.data.digit_world.scene import COLORS, place_digit
from mmunify.errors import DataError


def test_labels_of_a_clip_by_hand():
    digit = place_digit(0, "blue", (4, 24, 16))
    left, top, right, bottom = digit.box
    clip = Clip(movers=(Mover(digit=digit, direction="right", speed=4.0),))
    labels = label_places(clip).reshape(8, 8, 6)
    owned = labels[..., 0] != NOTHING
    rows, columns = np.flatnonzero(owned.any(1)), np.flatnonzero(owned.any(0))
    assert abs(rows[0] * 8 - top) <= 8 and abs((rows[-1] + 1) * 8 - bottom) <= 8
    assert abs(columns[0] * 8 - left) <= 8 and abs((columns[-1] + 1) * 8 - (right + 28)) <= 8
    wanted = [digit.digit, list(COLORS).index("blue"), list(DIRECTIONS).index("right"), 0, 0, 0]
    assert (labels[owned] == wanted).all()
    assert (labels[~owned] == [NOTHING] + [UNKNOWN] * 5).all()


@pytest.mark.parametrize("plot", PLOTS)
def test_events_and_ranks_are_those_of_the_masks(plot):
    data, seen, owners = DigitMotion("test", seed=1, num_digits=[2, 3]), 0, []
    for index in range(40):
        clip = data[index].facts["clip"]
        if clip.plot != plot:
            continue
        labels, seen = label_places(clip), seen + 1
        found = {tuple(row) for row in labels[labels[:, 0] != NOTHING].astype(int).tolist()}
        assert {row[3] for row in found} == {list(PLOTS).index(plot)}
        times = []
        for number, mover in enumerate(clip.movers):
            shown = np.flatnonzero(clip_masks(clip, number).any(axis=(1, 2)))
            rows = [row for row in found if row[:2] == (mover.digit.digit, list(COLORS).index(mover.digit.color))]
            owners.append(len(rows))
            for row in rows:
                assert row[2] == list(DIRECTIONS).index(mover.direction)
                assert plot == "stay" or abs(row[4] - (shown[-1] + 1 if plot == "leave" else shown[0])) <= 1
                times.append(row[4:])
        ranks = [rank for _, rank in sorted(times)]
        assert ranks == sorted(ranks) and (len(set(ranks)) == len(ranks) if plot != "stay" else not any(ranks))
    assert seen > 5
    assert set(owners) <= {0, 1} and np.mean(owners) > 0.95  # one that has only just come owns no place


def test_movers_stand_in_the_order_of_their_events():
    data, plots = DigitMotion("test", seed=2, num_movers=4), set()
    for index in range(20):
        sample = data[index]
        clip, rows = sample.facts["clip"], sample.turns[1].parts[0].target.astype(int)
        plots.add(clip.plot)
        number = len(clip.movers)
        assert rows.shape == (4, 6) and (rows[number:] == [NOTHING] + [UNKNOWN] * 5).all()
        event = {"leave": "leaves", "enter": "enters"}.get(clip.plot)
        order = in_order(clip, event) if event else range(number)
        movers = [clip.movers[place] for place in order]
        movers = movers if event else sorted(movers, key=lambda mover: mover.digit.box)
        assert rows[:number, 0].tolist() == [mover.digit.digit for mover in movers]
        assert rows[:number, 2].tolist() == [list(DIRECTIONS).index(mover.direction) for mover in movers]
        assert rows[:number, 5].tolist() == (list(range(1, number + 1)) if event else [0] * number)
    assert len(plots) == 3
    assert len(label_movers(clip, 1)) == 1


def test_samples():
    data = DigitMotion(length=3, num_digits=[1, 2], num_frames=6, warp=0.5)
    (shown,), (output,) = (turn.parts for turn in data[1].turns)
    assert (shown.kind, shown.source.shape, output.kind) == ("video", (6, 64, 64, 3), "motion")
    assert output.target.shape == (64, 6) and output.target.dtype == np.float32
    np.testing.assert_array_equal(data[1].turns[0].parts[0].source, shown.source)
    with pytest.raises(IndexError, match="sample 3 of a motion set with 3 samples"):
        data[3]
    with pytest.raises(DataError, match="unknown split 'dev'"):
        DigitMotion("dev")
