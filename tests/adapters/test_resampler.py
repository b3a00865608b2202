import pytest
import torch

from mmunify.adapters.resampler import ResamplerAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_adapter, random_features, randomize
from mmunify.types import Features, Layout, Run

TINY = {"num_queries": 4, "num_heads": 2}


def example(folder):
    return dict(TINY)


def test_layout_is_a_square_per_tile():
    adapter = ResamplerAdapter(8, 16, **TINY)
    assert adapter.layout(Layout.of(12, (3, 4))) == Layout.of(4, (2, 2))
    tiles = Layout(runs=(Run(token="<patch>"), Run(slots=12, grid=(3, 4)), Run(token="</patch>")) * 2)
    assert [run.slots for run in adapter.layout(tiles).runs] == [0, 4, 0, 0, 4, 0]


def test_tiles_are_read_one_by_one():
    torch.manual_seed(0)
    adapter = ResamplerAdapter(8, 16, **TINY)
    tokens = torch.randn(2, 36, 8)
    together = adapter(Features(tokens=tokens, grid=(3, 4)), Context())
    alone = [adapter(Features(tokens=tokens[:, i : i + 12], grid=(3, 4)), Context()).tokens for i in (0, 12, 24)]
    torch.testing.assert_close(together.tokens, torch.cat(alone, dim=1), atol=1e-6, rtol=0)
    assert together.mask is None


def test_positions_tell_places_apart():
    torch.manual_seed(0)
    features = random_features(8, (3, 4))
    shuffled = Features(tokens=features.tokens.flip(1), grid=features.grid)
    for positions, least, most in ((True, 1e-3, 10.0), (False, 0.0, 1e-5)):
        adapter = randomize(ResamplerAdapter(8, 16, **TINY, positions=positions))
        moved = (adapter(features, Context()).tokens - adapter(shuffled, Context()).tokens).abs().max()
        assert least <= moved <= most


def test_positions_need_a_grid():
    features = Features(tokens=torch.randn(2, 5, 8))
    with pytest.raises(DataError, match="5 tokens came without one"):
        ResamplerAdapter(8, 16, **TINY)(features, Context())
    assert ResamplerAdapter(8, 16, **TINY, positions=False)(features, Context()).tokens.shape == (2, 4, 16)


def test_any_raster_fits():
    adapter = ResamplerAdapter(8, 16, **TINY)
    for grid in ((1, 1), (2, 2), (7, 3)):
        check_adapter(adapter, 8, 16, grid) if grid != (1, 1) else adapter(random_features(8, grid), Context())


def test_a_wholly_masked_item_stays_finite():
    adapter = ResamplerAdapter(8, 16, **TINY)
    features = Features(tokens=torch.randn(2, 4, 8), grid=(2, 2), mask=torch.zeros(2, 4, dtype=torch.bool))
    embeds = adapter(features, Context())
    embeds.tokens.sum().backward()
    assert embeds.tokens.isfinite().all()
    assert all(p.grad.isfinite().all() for p in adapter.parameters())


def test_queries_that_are_no_square():
    with pytest.raises(UserError, match="form a square: .* got 6"):
        ResamplerAdapter(8, 16, num_queries=6)
