import pytest
import torch

from mmunify.train.learns import apply_learns
from mmunify.train.speed import SpeedCallback, peak_flops, step_flops_per_token
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage


def test_speed_is_logged(tmp_path):
    module = toy_module(ToyModel(), toy_stage(steps=2))
    fit(module, tmp_path, [SpeedCallback()])
    metrics = module.trainer.logged_metrics
    assert metrics["tokens_per_second"] * metrics["seconds"] == pytest.approx(8, rel=1e-3)
    assert metrics["data_wait"] >= 0 and metrics["memory/cpu"] > 50
    assert "flops_utilisation" not in metrics  # nobody knows the peak of a CPU


def test_operations_per_token(model):
    apply_learns(model, ["adapters.*"])
    sizes = [p.numel() for name, p in model.backbone.named_parameters() if ".layers." in name and p.ndim == 2]
    assert step_flops_per_token(model) == 4 * sum(sizes)
    apply_learns(model, ["backbone.*"])
    assert step_flops_per_token(model) == 6 * sum(sizes)
    for parameter in model.parameters():  # as ZeRO-3 leaves them between steps
        parameter.ds_shape, parameter.data = parameter.shape, torch.empty(0)
    assert step_flops_per_token(model) == 6 * sum(sizes)


def test_peaks_by_name(monkeypatch):
    assert peak_flops(torch.device("cpu")) is None
    for name, peak in (("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("Unheard of", None)):
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device, name=name: name)
        assert peak_flops(torch.device("cuda")) == peak


def test_the_share_of_the_peak(tmp_path, monkeypatch):
    monkeypatch.setattr("mmunify.train.speed.peak_flops", lambda device: 1e6)
    monkeypatch.setattr("mmunify.train.speed.step_flops_per_token", lambda model: 100.0)
    module = toy_module(ToyModel(), toy_stage(steps=2))
    fit(module, tmp_path, [SpeedCallback()])
    metrics = module.trainer.logged_metrics
    seconds = metrics["seconds"] + metrics["data_wait"]
    assert metrics["flops_utilisation"] == pytest.approx(float(8 * 100 / 1e6 / seconds), rel=1e-3)
