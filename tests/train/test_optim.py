import math
import sys
import types
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from mmunify.errors import MissingExtraError, RecipeError, UserError
from mmunify.recipe.fields import Optim
from mmunify.train.callbacks import CheckpointCallback
from mmunify.train.learns import apply_learns
from mmunify.train.optim import build_adamw, build_adamw_8bit, parameter_groups, rate_factor, set_rates
from mmunify.types import StepReport
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


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


def test_eight_bits_on_a_device_that_bitsandbytes_cannot_step(monkeypatch):
    old = types.ModuleType("bitsandbytes")
    old.__version__, old.optim = "0.45.0", types.SimpleNamespace(AdamW8bit=torch.optim.AdamW)
    monkeypatch.setitem(sys.modules, "bitsandbytes", old)
    monkeypatch.setattr("mmunify.train.optim._EIGHT_BITS", "bitsandbytes::no_such_operator")
    groups = [{"params": [torch.zeros(1, requires_grad=True)]}]
    with pytest.raises(UserError, match="bitsandbytes 0.45.0 has no step for tensors on 'cpu'; upgrade it"):
        build_adamw_8bit(groups)
    monkeypatch.setattr("mmunify.train.optim._EIGHT_BITS", "aten::add_.Tensor")
    made = build_adamw_8bit(groups, [0.5, 0.6], 1e-6).defaults
    assert (made["betas"], made["eps"]) == ((0.5, 0.6), 1e-6)


class Wide(ToyModel):
    """Large enough for states of 8 bits, in 32 bits."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 128), nn.Linear(128, 128), nn.Linear(128, 4))
        self.float()

    def forward(self, batch):
        x = batch.input_ids.float().unsqueeze(-1) * torch.tensor([0.1, 0.2, -0.1, 0.3])
        error = (self.backbone(self.adapters["image"](x)) - torch.sin(x * 3)).square().sum(-1) * batch.attention.valid
        return StepReport(
            losses={"text/error": error.sum()},
            counts={"text/error": batch.attention.valid.sum()},
            weights={"text/error": 1.0},
        )


def wide_run(folder, name, callbacks=(), checkpoint=None):
    stage = toy_stage(steps=40, optim=Optim(name=name, lr=3e-3, warmup=0, weight_decay=0.1), clip=1.0)
    torch.manual_seed(0)
    return fit(toy_module(Wide(), stage, [k % 8 for k in range(400)]), folder, callbacks, checkpoint)


@needs_bitsandbytes
def test_eight_bits_learn_as_well_as_32(tmp_path):
    whole, small = wide_run(tmp_path, "adamw"), wide_run(tmp_path, "adamw_8bit")
    sizes = [(p.numel(), state["state1"].dtype) for p, state in small.optimizers().state.items()]
    assert (128 * 128, torch.uint8) in sizes and (128, torch.float32) in sizes
    assert small.curve[-1] < 0.5 * small.curve[0] and small.curve != whole.curve
    assert small.curve == pytest.approx(whole.curve, rel=1e-2)


@needs_bitsandbytes
def test_eight_bits_go_on_exactly_after_an_interruption(tmp_path):
    whole = wide_run(tmp_path, "adamw_8bit")
    wide_run(tmp_path, "adamw_8bit", [CheckpointCallback(tmp_path / "x.ckpt", every=17)])
    resumed = wide_run(tmp_path, "adamw_8bit", checkpoint=tmp_path / "x.ckpt")
    assert resumed.curve == whole.curve
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
