import pytest
import torch

from mmunify.adapters.perceiver import PerceiverAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_adapter, random_features
from mmunify.types import Features, Layout

TINY = {"depth": 2, "num_heads": 2, "head_dim": 6, "num_queries": 5}


def example(folder):
    return dict(TINY)


def test_layout_is_the_latents():
    assert PerceiverAdapter(8, 16, **TINY).layout(Layout.of(12, (3, 4))) == Layout.of(5)


def test_its_own_width_puts_a_linear_before():
    adapter = PerceiverAdapter(8, 16, **TINY, dim=12)
    assert adapter.shrink.weight.shape == (12, 8)
    assert adapter.latents.shape == (5, 12)
    check_adapter(adapter, in_dim=8, out_dim=16)


def test_latents_see_each_other():
    torch.manual_seed(0)
    adapter = PerceiverAdapter(8, 16, **TINY).eval()
    features = random_features(8, (3, 4))
    before = adapter(features, Context()).tokens
    with torch.no_grad():
        adapter.latents[4] = adapter.latents[4].flip(0)
    after = adapter(features, Context()).tokens
    assert (after[:, 0] - before[:, 0]).abs().max() > 1e-4


def test_tokens_are_a_set_unless_positions_are_added():
    torch.manual_seed(0)
    features = random_features(8, (3, 4))
    shuffled = Features(tokens=features.tokens.flip(1), grid=features.grid)
    run = lambda adapter, x: adapter(x, Context()).tokens  # noqa: E731
    plain = PerceiverAdapter(8, 16, **TINY).eval()
    placed = PerceiverAdapter(8, 16, **TINY, positions=True).eval()
    torch.testing.assert_close(run(plain, features), run(plain, shuffled), atol=1e-5, rtol=0)
    assert (run(placed, features) - run(placed, shuffled)).abs().max() > 1e-3


def test_positions_need_a_grid():
    adapter = PerceiverAdapter(8, 16, **TINY, positions=True)
    with pytest.raises(DataError, match="12 tokens came without one"):
        adapter(Features(tokens=torch.zeros(1, 12, 8)), Context())


def test_an_item_without_any_token_falls_back_to_its_latents():
    torch.manual_seed(0)
    adapter = PerceiverAdapter(8, 16, **TINY).eval()
    tokens, mask = torch.randn(2, 4, 8), torch.zeros(2, 4, dtype=torch.bool)
    embeds = adapter(Features(tokens=tokens, mask=mask), Context()).tokens
    assert embeds.isfinite().all()
    torch.testing.assert_close(embeds[0], embeds[1])


def test_depth_zero_is_refused():
    with pytest.raises(UserError, match="depth of at least 1, got 0"):
        PerceiverAdapter(8, 16, **{**TINY, "depth": 0})


def test_frames_of_a_clip_are_told_apart():
    torch.manual_seed(0)
    clip = Features(tokens=torch.randn(2, 12, 8), grid=(2, 2))
    turned = Features(tokens=clip.tokens.roll(4, dims=1), grid=(2, 2))
    for positions, least, most in (("frames", 1e-4, 10.0), (True, 0.0, 1e-5), ("both", 1e-4, 10.0)):
        adapter = PerceiverAdapter(8, 16, **TINY, positions=positions).eval()
        moved = (adapter(clip, Context()).tokens - adapter(turned, Context()).tokens).abs().max()
        assert least <= moved <= most, positions
