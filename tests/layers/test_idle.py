import torch
from torch import nn

from mmunify.layers.idle import touch


def test_idle_parameters_get_a_gradient_of_zero():
    used, idle, frozen = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    states = used(torch.randn(4, 3))
    touched = touch(states, [idle, frozen])
    assert torch.equal(touched, states)
    touched.sum().backward()
    assert all(p.grad.abs().sum() == 0 for p in idle.parameters())
    assert all(p.grad is None for p in frozen.parameters())


def test_without_gradients_nothing_is_computed():
    states = torch.randn(4, 3)
    with torch.no_grad():
        assert touch(states, [nn.Linear(3, 2)]) is states
