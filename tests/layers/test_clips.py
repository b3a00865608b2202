"""Which frames of a clip are seen."""

import numpy as np
import pytest

from mmunify.layers.clips import ClipPreprocess


def indices(length, wanted, sampling="middle"):
    return ClipPreprocess(num_frames=wanted, sampling=sampling).indices(length)


def test_middles_of_equal_parts():
    assert indices(100, 4) == [12, 37, 62, 87]
    assert indices(4, 4) == [0, 1, 2, 3]
    assert indices(100, 1) == [50]


@pytest.mark.parametrize("length", [1, 3, 64, 65, 1000])
def test_starts_are_groundinggpts_where_its_step_is_exact(length):
    wanted = min(length, 64)
    if length % wanted == 0:
        assert indices(length, wanted, "starts") == np.arange(0, length, length / wanted).astype(int).tolist()
    assert indices(length, 64, "starts")[0] == 0


def test_ends_reach_from_the_first_frame_to_the_last():
    assert indices(10, 4, "ends") == [0, 3, 6, 9]
    assert indices(10, 1, "ends") == [0]


@pytest.mark.parametrize("sampling", ["middle", "starts", "ends"])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 9, 325])
def test_short_clips_repeat_frames_in_order(length, sampling):
    found = indices(length, 8, sampling)
    assert len(found) == 8 and found == sorted(found)
    assert set(found) <= set(range(length))
    assert len(set(found)) == min(length, 8)


def test_a_sample_stands_for_the_same_part_whatever_the_frame_rate():
    slow, fast = indices(24, 6), indices(240, 6)
    assert all(abs(a / 24 - b / 240) < 1 / 24 for a, b in zip(slow, fast, strict=True))
