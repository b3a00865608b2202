import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.errors import TokenError
from mmunify.tokens import bounding_box, pad_box, unpad_box
from mmunify.types import Region

SIDES = st.integers(1, 5000)


@st.composite
def boxes(draw):
    xs = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2)))
    ys = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2)))
    return xs[0], ys[0], xs[1], ys[1]


def test_padding_is_centred_with_floor_division():
    # 7 x 4 pixels in a 7 x 7 square: one row above, two below
    assert pad_box((0.0, 0.0, 1.0, 1.0), (7, 4)) == (0, 1 / 7, 1, 5 / 7)
    assert pad_box((0.0, 0.0, 1.0, 1.0), (4, 7)) == (1 / 7, 0, 5 / 7, 1)
    assert pad_box((0.1, 0.2, 0.3, 0.4), (640, 640)) == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("extent", [(640, 480), (480, 640), (641, 480), (1, 9)])
def test_a_padded_picture_has_its_pixels_where_the_box_says(extent):
    width, height = extent
    side = max(extent)
    square = np.zeros((side, side), bool)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = True
    assert bounding_box(Region(mask=square)) == pytest.approx(pad_box((0.0, 0.0, 1.0, 1.0), extent), abs=1e-12)


@settings(deadline=None)
@given(boxes(), SIDES, SIDES)
def test_unpadding_inverts_padding(box, width, height):
    assert unpad_box(pad_box(box, (width, height)), (width, height)) == pytest.approx(box, abs=1e-9)


def test_a_box_in_the_padding_collapses_and_one_half_in_it_is_clipped():
    assert unpad_box((0.0, 0.0, 1.0, 0.1), (100, 50)) == (0, 0, 1, 0)
    assert unpad_box((0.0, 0.0, 1.0, 0.5), (100, 50)) == (0, 0, 1, 0.5)


def test_bounding_boxes_of_masks_and_points():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:8] = True
    assert bounding_box(Region(mask=mask)) == (0.2, 0.2, 0.4, 0.5)
    assert bounding_box(Region(points=((0.5, 0.1), (0.2, 0.3)))) == (0.2, 0.1, 0.5, 0.3)
    assert bounding_box(Region(box=(0.1, 0.2, 0.3, 0.4))) == (0.1, 0.2, 0.3, 0.4)
    with pytest.raises(TokenError, match="mask of region 'red 7' is empty"):
        bounding_box(Region(mask=np.zeros((2, 2), bool), label="red 7"))
