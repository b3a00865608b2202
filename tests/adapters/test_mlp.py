import pytest
import torch
from torch.nn import functional as F

from mmunify.adapters.mlp import MLPAdapter
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.types import Features, Layout


def example(folder):
    return {"depth": 2}


def test_depth_three_by_hand():
    adapter = MLPAdapter(in_dim=6, out_dim=10, depth=3, hidden_dim=7)
    tokens = torch.randn(2, 4, 6)
    first, second, third = adapter.layers[0], adapter.layers[2], adapter.layers[4]
    wanted = third(F.gelu(second(F.gelu(first(tokens)))))
    torch.testing.assert_close(adapter(Features(tokens=tokens), Context()).tokens, wanted)
    assert [layer.weight.shape for layer in (first, second, third)] == [(7, 6), (7, 7), (10, 7)]


def test_depth_one_is_linear():
    adapter = MLPAdapter(in_dim=6, out_dim=10, depth=1)
    a, b = torch.randn(1, 2, 6), torch.randn(1, 2, 6)
    run = lambda tokens: adapter(Features(tokens=tokens), Context()).tokens  # noqa: E731
    torch.testing.assert_close(run(a) + run(b), run(a + b) + adapter.layers[0].bias)


def test_mask_and_layout_pass_through():
    adapter, mask = MLPAdapter(in_dim=6, out_dim=10), torch.tensor([[True, False]])
    assert torch.equal(adapter(Features(tokens=torch.zeros(1, 2, 6), mask=mask), Context()).mask, mask)
    layout = Layout.of(576, (24, 24))
    assert adapter.layout(layout) is layout


def test_depth_zero_is_refused():
    with pytest.raises(UserError, match="at least 1; got 0"):
        MLPAdapter(in_dim=6, out_dim=10, depth=0)
