"""Targets that are no pictures."""

import numpy as np
import pytest
import torch

from mmunify.data.targets import read_numbers, read_region_target
from mmunify.errors import DataError
from mmunify.layers.target_frames import RegionTarget
from mmunify.types import Preprocess, Region

FRAME = Preprocess(size=(16, 16), fit="stretch")
MASK = RegionTarget(kind="mask", size=(4, 4), frame=FRAME)
BOX = RegionTarget(kind="box", frame=FRAME)


def test_numbers_of_any_form(tmp_path):
    np.save(tmp_path / "a.npy", np.float16([1.5, 2.5]))
    assert read_numbers(tmp_path / "a.npy").tolist() == read_numbers(str(tmp_path / "a.npy")).tolist() == [1.5, 2.5]
    assert read_numbers(3).item() == 3.0 and read_numbers(torch.ones(2, 2)).dtype == torch.float32


def test_what_is_no_finite_number(tmp_path):
    with pytest.raises(DataError, match="holds numbers that are not finite"):
        read_numbers([1.0, float("nan")])
    with pytest.raises(DataError, match="a target must be numbers; got dict"):
        read_numbers({"a": 1})
    with pytest.raises(DataError, match="cat.png is no target of numbers; give a .npy file"):
        read_numbers("cat.png")
    np.save(tmp_path / "bad.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match="bad.npy cannot be read as an array"):
        read_numbers(tmp_path / "bad.npy")


def test_masks_of_frames_and_of_regions():
    clip = np.zeros((3, 8, 8), bool)
    clip[1, :4] = True
    target = read_region_target(clip, (8, 8), MASK)
    assert target.shape == (3, 4, 4) and target.sum((1, 2)).tolist() == [0.0, 8.0, 0.0]
    outline = Region(points=((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5)))
    torch.testing.assert_close(read_region_target(outline, (8, 8), MASK), target[1], atol=0.3, rtol=0)


def test_regions_must_fit_their_medium():
    with pytest.raises(DataError, match=r"a mask of shape \(4, 4\) for a medium of 8 x 6 pixels; expected \[6 8\]"):
        read_region_target(np.ones((4, 4)), (8, 6), MASK)
    with pytest.raises(DataError, match="a box output needs a medium of kind 'image' before it"):
        read_region_target((0, 0, 1, 1), None, BOX)
    with pytest.raises(DataError, match="has no area in its picture of 8 x 6"):
        read_region_target(Region(box=(0.5, 0.5, 0.5, 0.6)), (8, 6), BOX)
    with pytest.raises(DataError, match=r"got shape \(0,\)"):
        read_region_target(Region(points=((0.1, 0.1),)), (8, 6), BOX)
