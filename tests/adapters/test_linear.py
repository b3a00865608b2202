import torch

from mmunify.adapters.linear import LinearAdapter
from mmunify.parts import Context
from mmunify.types import Features, Layout


def example(folder):
    return {}


def test_is_one_linear_map():
    adapter = LinearAdapter(in_dim=6, out_dim=10)
    tokens = torch.randn(2, 3, 6)
    wanted = tokens @ adapter.project.weight.T + adapter.project.bias
    torch.testing.assert_close(adapter(Features(tokens=tokens), Context()).tokens, wanted)


def test_without_bias_zeros_stay_zeros():
    adapter = LinearAdapter(in_dim=6, out_dim=10, bias=False)
    assert adapter(Features(tokens=torch.zeros(1, 3, 6)), Context()).tokens.abs().sum() == 0


def test_mask_and_layout_pass_through():
    adapter, mask = LinearAdapter(in_dim=6, out_dim=10), torch.tensor([[True, False, True]])
    assert torch.equal(adapter(Features(tokens=torch.zeros(1, 3, 6), mask=mask), Context()).mask, mask)
    layout = Layout.of(12, (3, 4))
    assert adapter.layout(layout) == layout


def test_unified_mllm_language_projection_has_the_stated_size():
    assert sum(p.numel() for p in LinearAdapter(768, 4096).parameters()) == 3_149_824
