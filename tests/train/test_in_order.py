import pytest
import torch
from torch import nn

from mmunify.errors import TrainingError
from mmunify.train.in_order import InOrder


class Two(nn.Module):
    """Two layers that any order of the graph may reach first."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def loss(self, first, second):
        return second(torch.ones(2)).sum() + 2 * first(torch.ones(2)).sum() * 0


def watched(model) -> list[str]:
    """Names in the order in which hooks hear of gradients."""
    heard: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: heard.append(name))
    return heard


def test_gradients_come_in_one_order_whatever_the_graph():
    model = Two()
    heard = watched(model)
    model.loss(model.a, model.b).backward()
    model.loss(model.b, model.a).backward()
    assert heard[:4] != heard[4:] and sorted(heard[:4]) == sorted(heard[4:])

    model = Two()
    heard = watched(model)
    InOrder(list(model.parameters())[::-1]).take_over()
    for first, second in ((model.a, model.b), (model.b, model.a)):
        model.loss(first, second).backward()
    order = ["b.bias", "b.weight", "a.bias", "a.weight"]
    assert heard == order * 2
    model.a(torch.ones(2)).sum().backward()
    assert heard[8:] == ["a.bias", "a.weight"]
    (model.unused(torch.ones(2)).sum() + model.loss(model.a, model.b)).backward()
    assert heard[10:] == ["unused.bias", "unused.weight", *order]


def test_a_parameter_without_hooks():
    with pytest.raises(TrainingError, match="this version of DeepSpeed hooks gradients in an unknown way"):
        InOrder(list(nn.Linear(1, 1).parameters())).take_over()
