import pytest
import torch

from mmunify.train.average import Average
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage


def test_the_mean_follows_its_formula(tmp_path):
    model = ToyModel()
    module = toy_module(model, toy_stage(steps=4, ema=0.3))
    seen = []
    model.register_forward_pre_hook(lambda *args: seen.append(model.adapters["image"].weight.detach().clone()))
    fit(module, tmp_path)
    weights = [*seen, model.adapters["image"].weight.detach().clone()]
    mean = weights[0]
    for step, weight in enumerate(weights[1:]):
        decay = min(0.3, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
    torch.testing.assert_close(module.average.means["adapters/image/weight"].data, mean)
    module.average.copy_into(model)
    torch.testing.assert_close(model.adapters["image"].weight.data, mean)


def test_only_what_learns_is_averaged_in_float32_at_least():
    model = ToyModel().to(torch.bfloat16)
    model.requires_grad_(False)
    model.backbone[0].requires_grad_(True)
    average = Average(model, 0.9)
    assert set(average.means) == {"backbone/0/weight", "backbone/0/bias"}
    assert {mean.dtype for mean in average.means.values()} == {torch.float32}
    assert not any(mean.requires_grad for mean in average.means.values())


def test_a_stage_without_it_has_none(tmp_path):
    module = fit(toy_module(ToyModel(), toy_stage(steps=1)), tmp_path)
    assert module.average is None and not any("average" in name for name in module.state_dict())


def test_a_dropped_step_leaves_the_mean_alone(tmp_path):
    model = ToyModel()
    module = toy_module(model, toy_stage(steps=1, ema=0.5))
    model.register_forward_hook(lambda m, a, report: report.losses.update({"text/error": torch.tensor(float("nan"))}))
    fit(module, tmp_path)
    assert module.num_dropped == 1
    torch.testing.assert_close(module.average.means["backbone/0/weight"].data, model.backbone[0].weight.data)


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_what_a_decay_may_be(value):
    from mmunify.recipe.fields import Stage, typed

    tree = {"name": "x", "steps": 1, "learns": ["*"], "ema": value}
    assert [fault.path for fault in typed(Stage, tree)[1]] == ["ema"]


def test_of_what_zero_splits_a_process_averages_its_part():
    model = ToyModel()
    model.requires_grad_(False)
    weight = model.backbone[0].weight.requires_grad_(True)
    average = Average(model, 1.0)
    (mean,) = average.means.values()
    for parameter, value in ((weight, 2.0), (mean, 1.0)):
        parameter.ds_tensor, parameter.data = torch.full((8,), value), torch.empty(0)
    average.update(model, 0)  # 1 - 1 / 10 of the parameter
    torch.testing.assert_close(mean.ds_tensor, torch.full((8,), 1.9))
    average.copy_into(model)
    assert torch.equal(weight.ds_tensor, mean.ds_tensor) and not weight.numel()
