import pytest
import torch
from torch import nn

from mmunify.adapters.pixel_shuffle import PixelShuffleAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import random_features
from mmunify.types import Features, Layout, Run


def example(folder):
    return {"norm": True, "depth": 2}


def transparent(in_dim: int, factor: int) -> PixelShuffleAdapter:
    """One whose projection changes nothing."""
    adapter = PixelShuffleAdapter(in_dim, in_dim * factor**2, factor=factor, bias=False)
    with torch.no_grad():
        adapter.project[0].weight.copy_(torch.eye(in_dim * factor**2))
    return adapter


def test_a_block_is_row_column_channel():
    tokens = torch.arange(32.0).view(1, 16, 2)
    embeds = transparent(2, 2)(Features(tokens=tokens, grid=(4, 4)), Context()).tokens
    assert embeds.shape == (1, 4, 8)
    assert embeds[0, 1].tolist() == tokens[0, [2, 3, 6, 7]].flatten().tolist()


def test_edges_are_filled_with_zeros():
    tokens = torch.ones(1, 15, 2)
    embeds = transparent(2, 2)(Features(tokens=tokens, grid=(3, 5)), Context()).tokens
    assert embeds.shape == (1, 6, 8)
    assert embeds.sum(2).tolist() == [[8, 8, 4, 4, 4, 2]]


@pytest.mark.parametrize(("grid", "wanted"), [((24, 24), (12, 12)), ((3, 4), (2, 2)), ((1, 7), (1, 4))])
def test_layout_is_rounded_up(grid, wanted):
    adapter = PixelShuffleAdapter(2, 3)
    layout = adapter.layout(Layout.of(grid[0] * grid[1], grid))
    assert layout == Layout.of(wanted[0] * wanted[1], wanted)
    assert adapter(random_features(2, grid), Context()).tokens.shape[1] == layout.num_slots


def test_newlines_between_tiles_stay():
    tiles = Layout(runs=(Run(slots=32, grid=(4, 4)), Run(token="<newline>")))
    assert PixelShuffleAdapter(2, 3).layout(tiles).runs == (Run(slots=8, grid=(2, 2)), Run(token="<newline>"))


def test_a_block_is_real_if_one_of_its_tokens_is():
    mask = torch.tensor([[True, True, True, False, True, True, False, False], [True] * 2 + [False] * 6])
    features = Features(tokens=torch.full((2, 8, 2), 1.0), grid=(2, 4), mask=mask)
    embeds = transparent(2, 2)(features, Context())
    assert embeds.mask.tolist() == [[True, True], [True, False]]
    assert embeds.tokens.sum(2).tolist() == [[8, 2], [4, 0]]


def test_depth_and_norm():
    adapter = PixelShuffleAdapter(2, 5, factor=3, depth=2, norm=True)
    assert [type(layer) for layer in adapter.project] == [nn.Linear, nn.GELU, nn.Linear]
    assert adapter.norm.normalized_shape == (18,)


def test_a_class_token_in_front_is_refused():
    adapter = PixelShuffleAdapter(2, 3)
    with pytest.raises(UserError, match="a run of 257 of them has no grid of its own .*drop_class: true"):
        adapter.layout(Layout.of(257))
    with pytest.raises(DataError, match="pixel_shuffle needs features with a grid; 257 tokens came without one"):
        adapter(Features(tokens=torch.zeros(1, 257, 2)), Context())


@pytest.mark.parametrize("wrong", [{"factor": 0}, {"depth": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(UserError, match="at least 1"):
        PixelShuffleAdapter(2, 3, **wrong)
