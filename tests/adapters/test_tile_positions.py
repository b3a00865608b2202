import pytest
import torch

from mmunify.adapters.linear import LinearAdapter
from mmunify.adapters.resampler import ResamplerAdapter
from mmunify.adapters.tile_positions import TilePositionsAdapter
from mmunify.encoders.clip import CLIPEncoder
from mmunify.encoders.seedx_tiles import SeedXTilesEncoder
from mmunify.errors import DataError
from mmunify.parts import Context
from mmunify.registry import ADAPTERS
from mmunify.testing import randomize
from mmunify.types import Features
from tests.conftest import TINY_CLIP


def example(folder):
    return {"adapter": {"name": "resampler", "num_queries": 4, "num_heads": 4}}


def test_all_slots_of_a_tile_know_its_centre():
    """p = (x e0 + y e1 + (1 - x) e2 + (1 - y) e3) / 2, behind the adapter."""
    torch.manual_seed(0)
    adapter = TilePositionsAdapter(16, LinearAdapter(8, 16))
    centers = torch.tensor([[[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]])
    features = Features(tokens=torch.randn(1, 12, 8), grid=(2, 2), centers=centers)
    made = adapter(features, Context()).tokens - adapter.adapter(features, Context()).tokens
    left, bottom, right, top = adapter.positions.edges
    wanted = (0.75 * left + 0.5 * bottom + 0.25 * right + 0.5 * top) / 2
    torch.testing.assert_close(made[0, 4:8], wanted.expand(4, 16))
    torch.testing.assert_close(made[0, 8:], adapter.positions.edges.mean(0).expand(4, 16))


def test_without_centres_it_is_a_whole_picture():
    torch.manual_seed(0)
    adapter = TilePositionsAdapter(16, LinearAdapter(8, 16))
    features = Features(tokens=torch.randn(2, 4, 8))
    made = adapter(features, Context()).tokens - adapter.adapter(features, Context()).tokens
    torch.testing.assert_close(made, adapter.positions.edges.mean(0).expand(2, 4, 16))


def test_the_input_side_of_seed_x():
    """Tiles row by row and the whole picture; a smaller picture of the batch has fewer of them."""
    torch.manual_seed(0)
    encoder = SeedXTilesEncoder(randomize(CLIPEncoder(config=TINY_CLIP)), positions=False).eval()
    adapter = TilePositionsAdapter(12, ResamplerAdapter(32, 12, 4, num_heads=2)).eval()
    extent = torch.tensor([[64, 32], [32, 32]])
    features = encoder(torch.randn(2, 3, 3, 32, 32), Context(extent=extent))
    assert features.centers.tolist() == [[[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]]
    moved = adapter(features, Context()).tokens - adapter.adapter(features, Context()).tokens
    tiles = moved.unflatten(1, (3, 4))
    assert tiles.std(dim=2).max() < 1e-6
    torch.testing.assert_close(tiles[0, 2], tiles[1, 1])
    assert (tiles[0, 0] - tiles[0, 1]).abs().max() > 1e-3


def test_the_published_size():
    with torch.device("meta"):
        node = {"name": "tile_positions", "adapter": {"name": "resampler", "num_queries": 64, "num_heads": 32}}
        adapter = ADAPTERS.build(node, in_dim=4096, out_dim=5120)
    assert adapter.positions.edges.shape == (4, 5120)


def test_adapters_that_mix_tiles_are_named():
    adapter = ADAPTERS.build(
        {"name": "tile_positions", "adapter": {"name": "perceiver", "num_queries": 4, "depth": 1, "num_heads": 2}},
        in_dim=8,
        out_dim=16,
    )
    with pytest.raises(DataError, match="4 slots for 3 tiles: PerceiverAdapter doesn't make as many of each"):
        adapter(Features(tokens=torch.randn(1, 12, 8), grid=(2, 2), centers=torch.zeros(1, 3, 2)), Context())
