import pytest
import torch

from mmunify.encoders._views import Views, extents_of, raster_of
from mmunify.encoders.clip import CLIPEncoder
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from tests.conftest import TINY_CLIP

VALUES = torch.randn(3, 3, 3, 4, 4)


def test_real_views_come_out_and_go_back():
    views = Views.of(VALUES, [1, 3, 2], "tiles")
    taken = views.take(VALUES)
    assert taken.shape == (6, 1, 3, 4, 4)
    assert torch.equal(taken[1:4, 0], VALUES[1])
    assert views.first.tolist() == [0, 1, 4]
    joined = views.join(taken.flatten(1)[:, None])
    assert joined.shape == (3, 3, 48)
    assert torch.equal(joined[1], VALUES[1].flatten(1))
    assert torch.equal(joined[2, :2], VALUES[2, :2].flatten(1)) and not joined[2, 2].any()


def test_mask_is_left_out_where_all_views_are_real():
    assert Views.of(VALUES, [3, 3, 3], "tiles").mask(5) is None
    mask = Views.of(VALUES, [1, 3, 2], "tiles").mask(2)
    assert mask.sum(dim=1).tolist() == [2, 6, 4]


def test_views_that_do_not_fit_the_sizes():
    with pytest.raises(DataError, match=r"encoder 'tiles' got 3 items of 3 views, .* ask for \[1, 4, 2\]"):
        Views.of(VALUES, [1, 4, 2], "tiles")
    with pytest.raises(DataError, match="read the pictures with its own preprocessing"):
        Views.of(VALUES, [1, 1], "tiles")


def test_extents():
    assert extents_of(Context()) is None
    assert extents_of(Context(extent=torch.tensor([[3, 4], [5, 6]]))) == [(3, 4), (5, 6)]


def test_rasters_alone():
    assert raster_of(CLIPEncoder(config=TINY_CLIP), "tiles") == (4, 4)
    with pytest.raises(
        UserError, match="tiles needs an encoder whose tokens form a raster, and CLIPEncoder makes none"
    ):
        raster_of(CLIPEncoder(config=TINY_CLIP, drop_class=False), "tiles")
