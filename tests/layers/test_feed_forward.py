import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import UserError
from mmunify.layers.feed_forward import ACTIVATIONS, FeedForward


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_is_two_linears_around_the_activation(name):
    torch.manual_seed(0)
    layer = FeedForward(6, hidden_dim=10, activation=name)
    states = torch.randn(2, 3, 6)
    wanted = layer.reduce(getattr(F, name)(layer.expand(states)))
    torch.testing.assert_close(layer(states), wanted)


def test_defaults_to_four_times_the_width():
    layer = FeedForward(6)
    assert layer.expand.weight.shape == (24, 6)
    assert layer.reduce.weight.shape == (6, 24)


def test_without_biases():
    assert FeedForward(4, bias=False)(torch.zeros(1, 4)).abs().sum() == 0


def test_unknown_activation_lists_the_known_ones():
    with pytest.raises(UserError, match="no activation named 'swish'; known: gelu, relu, silu"):
        FeedForward(4, activation="swish")
