import math

import pytest
import torch
from lightning.pytorch import Callback

from mmunify.errors import CheckpointError, TrainingError
from mmunify.train.module import reseed
from mmunify.types import StepReport
from tests.train.worlds import ToyModel, fit, toy_batch, toy_module, toy_stage


class Gradients(Callback):
    """Keeps the gradients of every step."""

    def __init__(self) -> None:
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = {name: p.grad.clone() for name, p in pl_module.model.named_parameters() if p.grad is not None}
        self.steps.append(grads)


def still(model: ToyModel) -> ToyModel:
    """Without dropout, so that a batch and its halves have the same gradient."""
    model.backbone[1].p = 0.0
    return model


def test_loss_is_the_sum_over_the_count(tmp_path):
    kept, model = Gradients(), still(ToyModel())
    module = toy_module(model, toy_stage(steps=1))
    report = model(toy_batch(0, 1, 2, 3))
    report.total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    fit(module, tmp_path, [kept])
    assert module.curve == [pytest.approx(float(report.total), rel=1e-12)]
    torch.testing.assert_close(kept.steps[0], expected, rtol=1e-6, atol=1e-9)


def test_accumulated_window_equals_one_batch(tmp_path):
    """Counts differ between the halves (rows of 1 to 3 positions), so a mean of means would be wrong."""
    runs = []
    for size, accumulate in ((8, 1), (2, 4)):
        kept = Gradients()
        stage = toy_stage(batch_size=size, accumulate=accumulate, steps=3)
        module = fit(toy_module(still(ToyModel()), stage), tmp_path, [kept])
        runs.append((kept.steps, module.curve))
    (whole, curve), (split, other) = runs
    assert other == pytest.approx(curve, rel=1e-9)
    for step in range(3):
        for name in whole[step]:
            torch.testing.assert_close(split[step][name], whole[step][name], rtol=1e-5, atol=1e-8)


def test_clip_limits_the_step_and_the_norm_is_that_before(tmp_path):
    kept = Gradients()
    module = fit(toy_module(ToyModel(), toy_stage(steps=1, clip=1e-3)), tmp_path, [kept])
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in kept.steps[0].values()))
    assert norm == pytest.approx(1e-3, rel=1e-2)
    assert module.step_metrics["grad_norm"] > 1e-2


def test_telemetry(tmp_path):
    metrics = fit(toy_module(ToyModel(), toy_stage(steps=2)), tmp_path).step_metrics
    assert {"loss", "loss/text/error", "loss/odd/sum", "loss/aux/balance", "lr", "grad_norm"} <= set(metrics)
    assert (metrics["tokens"], metrics["padding"]) == (8, pytest.approx(1 - 8 / 12))  # rows of 2, 3, 1 and 2 positions
    assert metrics["loss"] == pytest.approx(
        metrics["loss/text/error"] + 0.5 * metrics["loss/odd/sum"] + metrics["loss/aux/balance"]
    )


class Broken(ToyModel):
    """Loses its mind at the samples 4 to 7."""

    def forward(self, batch):
        report = super().forward(batch)
        if self.breaks(batch.keys):
            report.losses["text/error"] = report.losses["text/error"] * float("nan")
        return report

    def breaks(self, keys):
        return 4 in keys


def test_a_step_without_a_finite_loss_is_dropped(tmp_path):
    module = toy_module(Broken(), toy_stage(steps=3))
    weights = []

    class Weights(Callback):
        def on_train_batch_end(self, *args):
            weights.append(module.model.backbone[0].weight.detach().clone())

    fit(module, tmp_path, [Weights()])
    assert module.num_dropped == 1 and module.dropped_in_row == 0
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert [math.isfinite(loss) for loss in module.curve] == [True, False, True]


def test_too_many_dropped_steps_stop_the_run_and_name_the_samples(tmp_path):
    model = Broken()
    model.breaks = lambda keys: True
    with pytest.raises(TrainingError, match=r"3 steps in a row.*sample-8, .*sample-11"):
        fit(toy_module(model, toy_stage(steps=50, max_dropped=3)), tmp_path)


def test_no_loss_at_all(tmp_path):
    model = ToyModel()
    model.forward = lambda batch: StepReport(losses={}, counts={}, weights={})
    with pytest.raises(TrainingError, match="no loss"):
        fit(toy_module(model, toy_stage()), tmp_path)


def test_batches_carry_seed_and_step_of_the_run(tmp_path):
    seen = []
    model = ToyModel()
    model.register_forward_pre_hook(lambda module, args: seen.append((args[0].seed, args[0].step)))
    module = toy_module(model, toy_stage(steps=3))
    module.seed, module.first_step = 5, 100
    fit(module, tmp_path)
    assert seen == [(5, 100), (5, 101), (5, 102)]


def test_reseed_depends_on_seed_step_and_rank():
    draws = {}
    for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        reseed(*key)
        draws[key] = torch.rand(()).item()
    reseed(0, 0, 0)
    assert torch.rand(()).item() == draws[0, 0, 0] and len(set(draws.values())) == 4


def test_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    saved = {"samples_per_step": 4, "curve": [], "num_dropped": 0, "dropped_in_row": 0}
    module = toy_module(ToyModel(), toy_stage(batch_size=4))
    module.on_load_checkpoint({"mmunify": saved})
    monkeypatch.setattr("mmunify.train.module.num_ranks", lambda: 2)
    with pytest.raises(CheckpointError, match=r"with 4 samples per step, this run has 8 \(2 processes\); keep batch"):
        module.on_load_checkpoint({"mmunify": saved})
    module.stage.batch_size = 2
    module.on_load_checkpoint({"mmunify": saved})


def test_checkpoints_hold_what_learns_and_load_as_plain_data(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.save_checkpoint(tmp_path / "state.ckpt")

    module = fit(toy_module(ToyModel(), toy_stage(learns=["adapters.*"], steps=2)), tmp_path, [Save()])
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    names = {name for name in state["state_dict"] if "norm" not in name}
    assert names == {"model.adapters.image.weight", "model.adapters.image.bias"}
    assert state["mmunify"]["curve"] == module.curve
