import math
import sys
import types

import pytest
import torch

from mmunify.errors import MissingExtraError, RecipeError
from mmunify.train.learns import apply_learns
from mmunify.train.optim import build_adamw, build_adamw_8bit, parameter_groups, rate_factor, set_rates
from tests.train.worlds import ToyModel


def named_groups(model, **options):
    """Name -> (rate, decay)."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, **options)
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_only_learning_matrices_decay():
    model = ToyModel()
    apply_learns(model, ["adapters.*"])
    found = named_groups(model, lr=1e-3, weight_decay=0.1)
    assert found == {"adapters.image.weight": (1e-3, 0.1), "adapters.image.bias": (1e-3, 0.0)}


def test_groups_by_glob_fall_back_to_the_stage():
    model = ToyModel()
    apply_learns(model, ["adapters.*", "backbone.*"])
    groups = [{"match": "backbone.*", "lr": 1e-5}, {"match": "backbone.2.*", "weight_decay": 0.0, "lr": None}]
    found = named_groups(model, lr=1e-3, weight_decay=0.1, groups=groups)
    assert found["backbone.0.weight"] == (1e-5, 0.1)
    assert found["backbone.2.weight"] == (1e-3, 0.0)
    assert found["adapters.image.weight"] == (1e-3, 0.1)


def test_group_that_matches_nothing_that_learns():
    model = ToyModel()
    apply_learns(model, ["adapters.*"])
    with pytest.raises(RecipeError, match=r"stages.mix.optim.groups.0: 'backbone.\*' matches nothing that learns"):
        parameter_groups(model, lr=1, weight_decay=0, groups=[{"match": "backbone.*"}], path="stages.mix.optim")


def test_warmup_rises_evenly_and_never_starts_at_zero():
    rates = [rate_factor(step, 100, warmup=4, schedule="constant") for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rate_factor(2, 100, warmup=0.04) == pytest.approx(0.6)  # a share of the stage


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decay_reaches_the_floor(schedule):
    rates = [rate_factor(step, 50, warmup=10, schedule=schedule, floor=0.1) for step in range(51)]
    assert rates[10] == 1.0 and rates[50] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert rates[30] == pytest.approx(0.55)  # halfway, both schedules are


def test_cosine_formula():
    assert rate_factor(25, 100, schedule="cosine") == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_set_rates_keeps_the_ratio_of_groups():
    model = ToyModel()
    apply_learns(model, ["adapters.*", "backbone.*"])
    groups = parameter_groups(model, lr=1e-3, weight_decay=0, groups=[{"match": "backbone.*", "lr": 1e-4}])
    optimizer = build_adamw(groups, (0.8, 0.99), 1e-5)
    set_rates(optimizer, 0.5)
    set_rates(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {2.5e-4, 2.5e-5}
    assert (optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["eps"]) == ((0.8, 0.99), 1e-5)


def test_eight_bits_need_bitsandbytes(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match="optim.name: adamw_8bit needs the package 'bitsandbytes'"):
        build_adamw_8bit([])
    made = types.ModuleType("bitsandbytes")
    made.optim = types.SimpleNamespace(AdamW8bit=torch.optim.AdamW)
    monkeypatch.setitem(sys.modules, "bitsandbytes", made)
    groups = [{"params": [torch.zeros(1, requires_grad=True)]}]
    made = build_adamw_8bit(groups, [0.5, 0.6], 1e-6).defaults
    assert (made["betas"], made["eps"]) == ((0.5, 0.6), 1e-6)
