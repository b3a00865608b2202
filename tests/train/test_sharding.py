"""What is split, and what is not; the equalities with one process are in tests/equalities/test_fsdp2.py."""

import pytest
import torch
from torch import nn

from mmunify.errors import TrainingError, UserError
from mmunify.train.learns import apply_learns
from mmunify.train.sharding import _check_split, _check_types, _send, _send_buffers, groups, left_whole


def names_of(model, modules):
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in modules]


def test_layers_and_learning_adapters_are_groups_inner_ones_first(model):
    layers = [f"backbone.lm.model.layers.{i}" for i in range(2)]
    apply_learns(model, ["backbone.*"])
    assert names_of(model, groups(model)) == layers
    apply_learns(model, ["adapters.*"])
    assert names_of(model, groups(model)) == [*layers, "adapters.image"]
    wrapped = names_of(model, groups(model, ["encoders.*.mlp"]))
    assert len([name for name in wrapped if name.startswith("encoders")]) == 2
    with pytest.raises(UserError, match="no module is named 'nothing"):
        groups(model, ["nothing.*"])


def test_frozen_parts_stay_whole_but_not_the_backbone(model):
    apply_learns(model, ["adapters.*"])
    whole = {id(p) for p in left_whole(model)}
    assert whole == {id(p) for part in (model.encoders, model.heads) for p in part.parameters()}


def test_two_types_that_learn_in_one_group():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1, dtype=torch.bfloat16)
    with pytest.raises(UserError, match=r"tensors of torch.bfloat16, torch.float32 learn in one group"):
        _check_types([*a.parameters(), *b.parameters()])
    b.requires_grad_(False)
    _check_types([*a.parameters(), *b.parameters()])


def test_what_learns_must_be_split():
    with pytest.raises(TrainingError, match="strategy fsdp2: weight learns but is not split"):
        _check_split(nn.Linear(1, 1))
    frozen = nn.Linear(1, 1).requires_grad_(False)
    frozen.table = torch.empty(1, device="meta")
    with pytest.raises(TrainingError, match=r"\.table has no values; make it a buffer"):
        _check_split(frozen)


class Rotary(nn.Module):
    """A buffer that no checkpoint holds, and a tied parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("frequencies", torch.rand(3), persistent=False)


def test_values_come_from_the_first_process(monkeypatch):
    real = Rotary()
    with torch.device("meta"):
        empty = Rotary()
    sent = []
    monkeypatch.setattr("mmunify.train.sharding.dist.broadcast", lambda values, src: sent.append(values))
    _send_buffers(real, torch.device("cpu"))
    _send(real.parameters(), real, torch.device("cpu"))
    values = iter(list(sent))
    monkeypatch.setattr("mmunify.train.sharding.dist.broadcast", lambda empty, src: empty.copy_(next(values)))
    _send_buffers(empty, torch.device("cpu"))
    _send(empty.parameters(), empty, torch.device("cpu"))
    torch.testing.assert_close(empty.state_dict(), real.state_dict(), rtol=0, atol=0)
    assert torch.equal(empty.frequencies, real.frequencies)
    assert empty.second.weight is empty.first.weight and next(values, None) is None
