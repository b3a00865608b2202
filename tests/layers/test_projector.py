import torch
from torch import nn
from torch.nn import functional as F

from mmunify.layers.projector import projector


def test_linears_with_gelu_between():
    layers = projector(3, 5, 4, 2)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    assert [layers[i].weight.shape for i in (0, 2, 4)] == [(5, 3), (4, 5), (2, 4)]
    x = torch.randn(7, 3)
    torch.testing.assert_close(layers(x), layers[4](F.gelu(layers[2](F.gelu(layers[0](x))))))


def test_two_widths_are_one_linear():
    assert [type(layer) for layer in projector(3, 5)] == [nn.Linear]


def test_size_of_unified_mllm():
    with torch.device("meta"):
        assert sum(p.numel() for p in projector(1024, 4096, 4096).parameters()) == 20_979_712
