"""Shares between what an adapter makes and the features of a source."""

import pytest
import torch

from mmunify.adapters.over_source import KEPT, OverSourceAdapter
from mmunify.errors import DataError
from mmunify.parts import Context
from mmunify.registry import ADAPTERS
from mmunify.testing import check_adapter
from mmunify.types import Embeds, Features, Layout

SOURCE = torch.arange(24.0).reshape(3, 4, 2)


def example(folder):
    return {"adapter": {"name": "mlp"}}


def laid_over(own, shares, source):
    """The answer of an adapter that makes `own` (3, 4, 2) with shares (4) before the sigmoid."""
    adapter = OverSourceAdapter(2, 2, {"name": "linear"})
    made = torch.cat([own, torch.tensor(shares).expand(3, 4)[..., None]], -1)
    inner = ADAPTERS.build({"name": "linear", "out_dim": 3}, in_dim=2)
    inner.forward = lambda features, context: Embeds(tokens=made)
    adapter.adapter = inner
    return adapter(Features(tokens=torch.zeros(3, 4, 2)), Context(source=source)).tokens


@pytest.mark.parametrize("grid", [(3, 4), (1, 5)])
def test_contract(grid):
    check_adapter(OverSourceAdapter(6, 8, {"name": "additive", "grid": 3, "dim": 16}), 6, 8, grid)


def test_shares_mix_the_source_with_what_was_made():
    own = torch.randn(3, 4, 2)
    mixed = laid_over(own, [-1e4, 0.0, 1e4, -KEPT], Features(tokens=SOURCE))
    torch.testing.assert_close(mixed[:, 0], own[:, 0])
    torch.testing.assert_close(mixed[:, 1], own[:, 1] + torch.tensor(KEPT).sigmoid() * (SOURCE - own)[:, 1])
    torch.testing.assert_close(mixed[:, 2], SOURCE[:, 2])
    torch.testing.assert_close(mixed[:, 3], (own + SOURCE)[:, 3] / 2)


def test_what_was_made_is_retouched_by_what_was_there():
    """Token by token, the share too, where there is a source."""
    torch.manual_seed(0)
    adapter, given = OverSourceAdapter(6, 4, {"name": "mlp"}), torch.tensor([True, False])[:, None].expand(2, 3)
    features, source = Features(tokens=torch.randn(2, 3, 6)), Features(tokens=torch.randn(2, 3, 4), mask=given)
    before = adapter(features, Context(source=source)).tokens
    torch.nn.init.normal_(adapter.retouch[-1].weight)
    made = adapter.adapter(features, Context()).tokens
    changed = made + adapter.retouch(torch.cat([source.tokens, made], -1))
    expected = torch.lerp(changed[..., :-1], source.tokens, (changed[..., -1:] + KEPT).sigmoid())
    after = adapter(features, Context(source=source)).tokens
    torch.testing.assert_close(after[0], expected[0])
    torch.testing.assert_close(after[1], before[1])
    assert not torch.isclose(after[0], before[0]).all(1).any()


def test_items_without_a_source_are_made_whole():
    own, given = torch.randn(3, 4, 2), torch.tensor([True, False, True])[:, None].expand(3, 4)
    mixed = laid_over(own, [1e4] * 4, Features(tokens=SOURCE, mask=given))
    torch.testing.assert_close(mixed[1], own[1])
    torch.testing.assert_close(mixed[[0, 2]], SOURCE[[0, 2]])
    torch.testing.assert_close(laid_over(own, [1e4] * 4, None), own)


def test_the_adapter_inside_has_room_for_the_share_whatever_its_node_says():
    adapter = OverSourceAdapter(6, 4, {"name": "additive", "grid": 2, "out_dim": 4})
    assert adapter(Features(tokens=torch.zeros(1, 3, 6)), Context()).tokens.shape == (1, 4, 4)
    assert adapter.layout(Layout.of(3)) == Layout.of(4, (2, 2)) and adapter.needs == {"source"}


def test_adapters_of_several_parts_are_inside_too():
    parts = [{"name": "mlp", "out_dim": 6}, {"name": "additive", "grid": 2}]
    adapter = OverSourceAdapter(6, 4, {"name": "series", "parts": parts})
    assert adapter(Features(tokens=torch.zeros(1, 3, 6)), Context()).tokens.shape == (1, 4, 4)


def test_a_source_of_another_shape_is_told():
    adapter = OverSourceAdapter(6, 2, {"name": "mlp"})
    with pytest.raises(DataError, match=r"makes \(3, 5, 2\).*lies over features of \(3, 4, 2\)"):
        adapter(Features(tokens=torch.zeros(3, 5, 6)), Context(source=Features(tokens=SOURCE)))
