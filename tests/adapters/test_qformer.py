import pytest
import torch

from mmunify.adapters.qformer import QFormerAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import random_features
from mmunify.types import Features, Layout

TINY = {"dim": 24, "depth": 3, "num_heads": 4, "num_queries": 5}


def example(folder):
    return dict(TINY)


def test_layout_is_the_queries():
    assert QFormerAdapter(8, 16, **TINY).layout(Layout.of(12, (3, 4))) == Layout.of(5)


@pytest.mark.parametrize(("frequency", "reading"), [(1, [0, 1, 2]), (2, [0, 2]), (3, [0])])
def test_cross_attention_sits_in_every_nth_block(frequency, reading):
    adapter = QFormerAdapter(8, 16, **TINY, cross_attention_frequency=frequency)
    assert [i for i, block in enumerate(adapter.blocks) if block.cross is not None] == reading


def test_tokens_are_a_set_unless_positions_are_added():
    torch.manual_seed(0)
    features = random_features(8, (3, 4))
    shuffled = Features(tokens=features.tokens.flip(1), grid=features.grid)
    plain = QFormerAdapter(8, 16, **TINY).eval()
    placed = QFormerAdapter(8, 16, **TINY, positions=True).eval()
    run = lambda adapter, x: adapter(x, Context()).tokens  # noqa: E731
    torch.testing.assert_close(run(plain, features), run(plain, shuffled), atol=1e-5, rtol=0)
    assert (run(placed, features) - run(placed, shuffled)).abs().max() > 1e-3


def test_positions_need_a_grid():
    adapter = QFormerAdapter(8, 16, **TINY, positions=True)
    with pytest.raises(DataError, match="needs features with a grid"):
        adapter(Features(tokens=torch.zeros(1, 12, 8)), Context())


def test_an_item_without_any_token_stays_finite():
    adapter = QFormerAdapter(8, 16, **TINY)
    features = Features(tokens=torch.randn(2, 4, 8), mask=torch.tensor([[True] * 4, [False] * 4]))
    embeds = adapter(features, Context()).tokens
    embeds.sum().backward()
    assert embeds.isfinite().all()
    assert all(p.grad.isfinite().all() for p in adapter.parameters())


def test_dropout_is_off_by_default_and_on_request():
    features = random_features(8, (3, 4))
    for dropout, same in ((0.0, True), (0.3, False)):
        adapter = QFormerAdapter(8, 16, **TINY, dropout=dropout).train()
        first, second = (adapter(features, Context()).tokens for _ in range(2))
        assert torch.equal(first, second) is same


@pytest.mark.parametrize(("width", "num_queries", "total"), [(768, 64, 18_954_240), (1024, 8, 19_697_664)])
def test_sizes_of_unified_mllm(width, num_queries, total):
    """Two layers that read the tokens in each, queries and the norm before them included."""
    with torch.device("meta"):
        adapter = QFormerAdapter(width, 4096, num_queries=num_queries, depth=2, dim=768, cross_attention_frequency=1)
    inner = [p for name, p in adapter.named_parameters() if not name.startswith("project.")]
    assert sum(p.numel() for p in inner) == total


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"cross_attention_frequency": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(UserError, match="at least 1"):
        QFormerAdapter(8, 16, **{**TINY, **wrong})


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(UserError, match="dim=24 is no multiple of num_heads=7"):
        QFormerAdapter(8, 16, **{**TINY, "num_heads": 7})
