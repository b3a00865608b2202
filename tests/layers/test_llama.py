import torch
from torch.nn import functional as F

from mmunify.layers.llama import GatedFeedForward, LlamaBlock


def test_swiglu_by_hand():
    layer, x = GatedFeedForward(6, 10), torch.randn(2, 6)
    wanted = (F.silu(x @ layer.gate.weight.T) * (x @ layer.expand.weight.T)) @ layer.reduce.weight.T
    torch.testing.assert_close(layer(x), wanted)


def test_widths_of_llama():
    with torch.device("meta"):
        assert GatedFeedForward(1024).gate.out_features == 2816
        assert GatedFeedForward(4096).gate.out_features == 11008


def test_order_is_unknown_and_masked_positions_unseen():
    torch.manual_seed(0)
    block, states = LlamaBlock(16, num_heads=4, hidden_dim=24), torch.randn(2, 5, 16)
    torch.testing.assert_close(block(states.flip(1)), block(states).flip(1), atol=1e-5, rtol=0)
    mask = torch.arange(5).expand(2, 5) < 3
    torch.testing.assert_close(block(states, mask)[:, :3], block(states[:, :3]), atol=1e-5, rtol=0)
