"""Regions in the frame of the encoder's picture."""

import numpy as np
import pytest
import torch

from mmunify.data.regions import region_row
from mmunify.errors import DataError
from mmunify.layers.region_frames import RegionPreprocess, split_rows
from mmunify.types import Preprocess, Region

RASTER = RegionPreprocess(size=(8, 8))
STRETCH, PAD, CROP = (Preprocess(size=(32, 32), fit=fit) for fit in ("stretch", "pad", "crop"))


def read(region, extent=(40, 40), medium=STRETCH):
    (item,), (box,), (mask,) = split_rows(region_row(region, extent, medium, RASTER)[None], RASTER.size)
    assert item == 0
    return box, mask


def half(side, value=True):
    """The right half of a picture."""
    mask = np.zeros((side[1], side[0]), bool)
    mask[:, side[0] // 2 :] = value
    return mask


def test_boxes_cover_shares_of_cells():
    box, mask = read(Region(box=(0.25, 0.0, 0.5625, 0.5)))
    torch.testing.assert_close(box, torch.tensor([0.25, 0.0, 0.5625, 0.5]))
    wanted = torch.zeros(8, 8)
    wanted[:4, 2:4], wanted[:4, 4] = 1.0, 0.5
    torch.testing.assert_close(mask, wanted)


def test_tiny_boxes_do_not_vanish():
    _, mask = read(Region(box=(0.5, 0.5, 0.501, 0.501)))
    assert mask.sum() == pytest.approx(0.008**2, rel=1e-3)


@pytest.mark.parametrize(
    ("medium", "extent", "wanted"),
    [
        (STRETCH, (40, 20), [0.5, 0.0, 1.0, 1.0]),
        (PAD, (40, 20), [0.5, 0.25, 1.0, 0.75]),
        (PAD, (20, 40), [0.5, 0.0, 0.75, 1.0]),
        (CROP, (40, 20), [0.5, 0.0, 1.0, 1.0]),
        (CROP, (20, 40), [0.5, 0.0, 1.0, 1.0]),
    ],
)
def test_boxes_and_masks_go_where_the_picture_goes(medium, extent, wanted):
    box, mask = read(Region(box=(0.5, 0.0, 1.0, 1.0)), extent, medium)
    around, same = read(Region(mask=half(extent)), extent, medium)
    torch.testing.assert_close(box, torch.tensor(wanted))
    torch.testing.assert_close(around, box)
    torch.testing.assert_close(same, mask, atol=1e-2, rtol=0)


def test_clicks_are_discs_and_three_points_are_an_outline():
    box, mask = read(Region(points=((0.5, 0.25),)))
    assert mask.sum() > 0
    assert box[0] < 0.5 < box[2] and box[1] <= 0.25 <= box[3]
    _, two = read(Region(points=((0.1, 0.1), (0.9, 0.9))))
    assert two[0, 0] > 0 < two[7, 7] and two[4, 4] == 0
    _, square = read(Region(points=((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))))
    assert (square[3:5, 3:5] == 1).all() and square[0].sum() == 0
    assert square.sum() == pytest.approx(16, rel=0.15)


def test_what_lies_outside_is_cut_off():
    box, mask = read(Region(box=(-1.0, 0.5, 0.25, 3.0)))
    assert box.tolist() == [0.0, 0.5, 0.25, 1.0]
    assert mask.sum() == 4 * 2
    left = read(Region(box=(0.3, 0.0, 1.0, 1.0)), (40, 20), CROP)[0]  # the middle 20 pixels are seen
    torch.testing.assert_close(left, torch.tensor([0.1, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region(box=(0.5, 0.5, 0.5, 0.9)), r"box \(0.5, 0.5, 0.5, 0.9\) has no area"),
        (Region(box=(0.9, 0.0, 0.1, 1.0)), "has no area: it takes x0 < x1"),
        (Region(box=(0.0, 0.0, float("nan"), 1.0)), "has no area"),
        (Region(box=(1.5, 0.0, 2.0, 1.0)), "lies outside of its picture"),
        (
            Region(points=((5.0, 5.0),), label="cat"),
            "the points of region 'cat' covers nothing of its picture of 40 x 40",
        ),
        (Region(points=((0.1, float("inf")),)), "no .x, y. pairs of finite numbers"),
        (Region(points=()), "no .x, y. pairs of finite numbers"),
        (Region(mask=np.zeros((40, 40), bool)), "the mask of a region covers nothing"),
        (Region(mask=np.ones((40, 39), bool)), r"a mask of \(39, 40\) for a picture of \(40, 40\)"),
    ],
)
def test_bad_regions(region, message):
    with pytest.raises(DataError, match=message):
        read(region)


def test_boxes_that_the_crop_leaves_out():
    with pytest.raises(DataError, match="or of the part that its encoder sees"):
        read(Region(box=(0.0, 0.0, 0.2, 1.0)), (40, 20), CROP)
