"""What gates did during a stage."""

import json

import pytest
import torch
from PIL import Image

from mmunify.experts.low_rank.lora_moe import LoRAMoETuner
from mmunify.tokens import TokenRegistry
from mmunify.train.gates import LOG_EVERY, GateCallback
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage


def _gated() -> ToyModel:
    model = ToyModel()
    model.tokens = TokenRegistry(["segment", "remove"])
    LoRAMoETuner("backbone.*", rank=1, num_experts=3).apply(model)
    return model


def test_gates_are_logged_drawn_and_kept(tmp_path):
    module = toy_module(_gated(), toy_stage(steps=LOG_EVERY))
    fit(module, tmp_path, [GateCallback(tmp_path, "mix")])
    kept = json.loads((tmp_path / "mix_gates.json").read_text())
    assert kept["tasks"] == ["none", "segment", "remove"]
    for layer in kept["layers"].values():
        assert sum(layer["weights"][0]) == pytest.approx(1, abs=1e-4)
        assert layer["tokens"][0] > 0 and layer["tokens"][1:] == [0, 0]
    assert Image.open(tmp_path / "mix_gates.png").width > 90
    logged = module.trainer.logged_metrics
    assert 0 < logged["gate/entropy"] <= torch.log(torch.tensor(3.0)) + 1e-4 and logged["gate/information"] == 0


def test_a_model_without_gates_leaves_nothing(tmp_path):
    fit(toy_module(ToyModel(), toy_stage(steps=2)), tmp_path, [GateCallback(tmp_path, "mix")])
    assert not list(tmp_path.glob("*gates*"))
