import pytest
import torch

from mmunify.adapters.qformer import QFormerAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import random_features, randomize
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


def test_sound_segments_are_told_apart_by_learned_positions():
    torch.manual_seed(0)
    adapter = QFormerAdapter(8, 16, **TINY, positions="frames").eval()
    segments = Features(tokens=torch.randn(2, 3, 8), num_frames=3)
    turned = Features(tokens=segments.tokens.flip(1), num_frames=3)
    moved = adapter(segments, Context()).tokens - adapter(turned, Context()).tokens
    assert moved.abs().max() > 1e-4


def test_tokens_of_a_frame_share_its_learned_position():
    torch.manual_seed(0)
    adapter = QFormerAdapter(8, 16, **TINY, positions="frames").eval()
    plain = QFormerAdapter(8, 16, **TINY).eval()
    plain.load_state_dict({k: v for k, v in adapter.state_dict().items() if k != "temporal.table"})
    tokens = torch.randn(2, 12, 8)
    placed = tokens + adapter.temporal.table[:3].repeat_interleave(4, dim=0)
    answer = adapter(Features(tokens=tokens, grid=(2, 2)), Context()).tokens
    torch.testing.assert_close(answer, plain(Features(tokens=placed), Context()).tokens)


def test_both_positions_together():
    torch.manual_seed(0)
    adapter = QFormerAdapter(8, 16, **TINY, positions="both").eval()
    tokens = torch.randn(1, 12, 8)
    run = lambda x: adapter(Features(tokens=x, grid=(2, 2)), Context()).tokens  # noqa: E731
    inside, between = tokens[:, [1, 0, *range(2, 12)]], tokens.roll(4, dims=1)
    assert (run(inside) - run(tokens)).abs().max() > 1e-4
    assert (run(between) - run(tokens)).abs().max() > 1e-4


def ask(adapter, ids, mask=None):
    features = random_features(8, (2, 2))
    return adapter(features, Context(side_ids=torch.tensor(ids), side_mask=mask)).tokens


def test_the_text_beside_an_item_reaches_its_queries_alone():
    adapter = randomize(QFormerAdapter(8, 16, **TINY, text={"vocab_size": 11})).eval()
    assert adapter.needs == {"side_text"}
    first, second = ask(adapter, [[4, 5, 6], [4, 5, 6]]), ask(adapter, [[4, 5, 6], [4, 5, 7]])
    assert first.shape == (2, 5, 16)
    assert torch.equal(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-3


def test_padding_of_a_text_is_as_good_as_absent():
    adapter = randomize(QFormerAdapter(8, 16, **TINY, text={"vocab_size": 11})).eval()
    mask = torch.tensor([[True, True, False]] * 2)
    short, padded = ask(adapter, [[4, 5]] * 2), ask(adapter, [[4, 5, 9]] * 2, mask)
    torch.testing.assert_close(padded, short, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ids", [None, torch.tensor([[4, 5, 6]] * 2)])
def test_every_parameter_takes_part_with_and_without_text(ids):
    adapter = QFormerAdapter(8, 16, **TINY, text={"vocab_size": 11})
    adapter(random_features(8, (2, 2)), Context(side_ids=ids)).tokens.sum().backward()
    assert all(p.grad is not None for p in adapter.parameters())


def test_without_a_linear_at_the_end():
    adapter = QFormerAdapter(8, None, **TINY)
    assert adapter(random_features(8, (2, 2)), Context()).tokens.shape == (2, 5, 24)
