"""Weights that come and go in one process; the equalities over several are in test_zero3.py."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from mmunify.errors import TrainingError
from mmunify.train.whole_weights import WholeWeights, _tensors


@dataclass(frozen=True, slots=True)
class Made:
    """What an adapter returns: no tensor, but something that holds one."""

    tokens: Tensor


class Adapter(nn.Linear):
    def forward(self, x):
        return Made(super().forward(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.inner = None

    def forward(self, x):
        self.inner = torch.tanh(self.a(x))
        return (x + self.b(self.inner),)


class Model(nn.Module):
    """An adapter, two layers of which the first is frozen, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.adapters = nn.ModuleDict({"image": Adapter(4, 4)})
        self.backbone = nn.Module()
        self.backbone.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 1)
        self.backbone.layers[0].requires_grad_(False)

    def forward(self, x, idle=False, rounds=1):
        made = self.adapters["image"](x).tokens
        x = x + made.sum() * 0 if idle else x + made
        for layer in list(self.backbone.layers) * rounds:
            (x,) = layer(x)
        return self.head(x).square().sum()


class Split:
    """A model whose parameters were split; what is put together and handed over is written down."""

    def __init__(self, monkeypatch, model):
        monkeypatch.setattr("mmunify.train.whole_weights.num_ranks", lambda: 2)
        self.model, self.names = model, {parameter: name for name, parameter in model.named_parameters()}
        self.events: list[str] = []
        self.gradients: dict[str, Tensor] = {}
        self.storages: dict[str, StorageWeakRef] = {}
        for parameter in self.names:
            parameter.ds_shape, parameter.ds_tensor = parameter.shape, parameter.detach().clone()
            parameter.all_gather_coalesced, parameter.partition = self.gather, self.partition
        self.partition(self.names)
        self.weights = WholeWeights(model, list(self.names), self.reduce)

    def gather(self, parameters):
        for parameter in parameters:
            parameter.data, parameter.ds_status = parameter.ds_tensor.clone(), SimpleNamespace(name="AVAILABLE")
            self.storages[self.names[parameter]] = StorageWeakRef(parameter.untyped_storage())
        self.events.append(f"gather {self.names[parameters[0]]}")
        return SimpleNamespace(wait=lambda: None)

    def partition(self, parameters):
        for parameter in parameters:
            parameter.data, parameter.ds_status = torch.empty(0), SimpleNamespace(name="NOT_AVAILABLE")

    def reduce(self, parameter):
        name = self.names[parameter]
        assert name not in self.gradients
        self.events.append(f"reduce {name}")
        self.gradients[name], parameter.grad = parameter.grad.clone(), None

    def backward(self, loss):
        self.gradients = {}
        self.weights.watch(loss)
        loss.backward()


@pytest.fixture
def split(monkeypatch):
    return lambda model: Split(monkeypatch, model)


LAYERS = ["backbone.layers.0.a.weight", "backbone.layers.1.a.weight"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_gradients_are_those_of_whole_weights(split, rounds):
    """Also of layers that run twice, and with gradients that two backward passes add up."""
    model = Model()
    like, held = copy.deepcopy(model), split(model)
    for x in (torch.ones(2, 4), torch.randn(2, 4)):
        like.zero_grad()
        like(x, rounds=rounds).backward()
        with held.weights.step():
            held.backward(model(x, rounds=rounds))
        assert {name for name, p in like.named_parameters() if p.requires_grad} == held.gradients.keys()
        assert all(torch.equal(like.get_parameter(name).grad, value) for name, value in held.gradients.items())
        assert all(parameter.numel() == 0 for parameter in model.parameters())


def test_weights_are_whole_while_they_run_alone(split):
    """Autograd keeps a transposed view of a frozen weight; the numbers are gone all the same."""
    model = Model()
    held = split(model)
    with held.weights.step():
        assert model.head.weight.numel() == 4 and held.events == ["gather head.weight"]
        loss = model(torch.ones(2, 4))
        assert held.events[1:] == ["gather adapters.image.weight", *(f"gather {name}" for name in LAYERS)]
        gone = [name for name, storage in held.storages.items() if storage.expired()]
        assert gone == [name for name in held.storages if not name.startswith("head")]
        held.backward(loss)
    with held.weights.step(), torch.no_grad():
        assert torch.isfinite(model(torch.ones(2, 4)))
    held.weights.let_go()
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 4))


def test_the_order_is_one_whatever_a_batch_has(split):
    model = Model()
    held = split(model)
    with held.weights.step():
        held.backward(model(torch.ones(2, 4)))
    first, held.events = held.events, []
    with held.weights.step():
        held.backward(model(torch.ones(2, 4), idle=True))
    assert first == held.events
    back = [event for event in first[4:] if not event.endswith("bias")]
    assert back == [
        f"gather {LAYERS[1]}",
        f"reduce {LAYERS[1]}",
        "reduce backbone.layers.1.b.weight",
        f"gather {LAYERS[0]}",
        "gather adapters.image.weight",
        "reduce adapters.image.weight",
        "reduce head.weight",
    ]
    assert not held.gradients["adapters.image.weight"].any()


def test_what_two_groups_share_is_whole_all_the_time(split):
    model = Model()
    model.backbone.layers[1].a.weight = model.backbone.layers[0].a.weight
    held = split(model)
    assert [held.names[parameter] for parameter in held.weights.rest] == [LAYERS[0], "head.weight", "head.bias"]


def test_what_has_no_gradient_gets_zeros_and_what_is_cut_off_is_told(split):
    model = Model()
    model.spare = nn.Linear(2, 2)
    held = split(model)
    with held.weights.step():
        held.backward(model(torch.ones(2, 4)))
    assert held.gradients["spare.weight"].shape == (2, 2) and not held.gradients["spare.weight"].any()

    with held.weights.step():
        model(torch.ones(2, 4))
        with pytest.raises(TrainingError, match=r"a weight of shape \(4, 4\) is needed .* while it is split"):
            held.backward(model.backbone.layers[1].inner.sum())
    assert all(parameter.numel() == 0 for parameter in model.parameters())


def test_tensors_are_found_wherever_they_are():
    a, b, c = torch.zeros(1), torch.ones(1), torch.ones(2)
    assert list(_tensors({"x": (a, None, "word"), "y": [Made(b)], "z": c})) == [a, b, c]
