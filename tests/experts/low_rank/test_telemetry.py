import math

import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.experts.low_rank._telemetry import GateFigures, GateTelemetry, LayerFigures
from mmunify.registry import TUNERS

X = 4


def mixture(num_experts=X):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    TUNERS.build({"name": "lora_moe", "match": "*", "rank": 2, "num_experts": num_experts}).apply(model)
    return model


def test_means_by_task_over_several_forwards_padding_left_out():
    model, telemetry = mixture(), GateTelemetry(["none", "edit", "segment"])
    kept = {0: [], 1: [], 2: []}
    for _ in range(2):
        x, task, valid = torch.randn(2, 5, 6), torch.randint(2, (2, 5)), torch.rand(2, 5) < 0.7
        with use_tokens(TokenContext(valid=valid, task=task)):
            model(x)
        telemetry.update(model)
        weights = (x @ model[0].low_rank.gate.T).softmax(-1)
        for t in kept:
            kept[t].append(weights[valid & (task == t)])
    figures = telemetry.figures()
    assert list(figures.layers) == ["0", "2"]
    layer = figures.layers["0"]
    for t in (0, 1):
        rows = torch.cat(kept[t])
        torch.testing.assert_close(torch.tensor(layer.weights[t]), rows.mean(0))
        assert layer.entropy[t] == pytest.approx(-(rows * rows.log()).sum(-1).mean().item(), abs=1e-5)
        assert layer.tokens[t] == len(rows)
    assert layer.tokens[2] == 0 and layer.weights[2] == [0.0] * X
    everything = torch.cat([*kept[0], *kept[1]])
    torch.testing.assert_close(torch.tensor(layer.mean()), everything.mean(0))
    telemetry.reset()
    assert telemetry.figures().layers == {}


def test_tasks_need_not_be_told_apart():
    model, telemetry = mixture(), GateTelemetry()
    telemetry.update(model)
    assert telemetry.figures().layers == {}
    model(torch.randn(3, 6))
    telemetry.update(model)
    assert telemetry.figures().tasks == ("all",)
    assert telemetry.figures().layers["0"].tokens == [3]


def test_a_task_without_a_name_is_refused():
    model, telemetry = mixture(), GateTelemetry(["none"])
    with use_tokens(TokenContext(task=torch.tensor([[0, 3]]))):
        model(torch.randn(1, 2, 6))
    with pytest.raises(UserError, match="task id 3 has no name, there are 1"):
        telemetry.update(model)


def layer(weights, tokens=(10.0, 10.0)):
    return LayerFigures(weights=weights, entropy=[0.0, 0.0], tokens=list(tokens))


def test_information_says_whether_experts_specialise():
    assert layer([[0.5, 0.5], [0.5, 0.5]]).information() == pytest.approx(0, abs=1e-12)
    assert layer([[1.0, 0.0], [0.0, 1.0]]).information() == pytest.approx(math.log(2))
    assert layer([[1.0, 0.0], [0.0, 1.0]], (10.0, 0.0)).information() == pytest.approx(0, abs=1e-12)
    assert layer([[2.0, 0.0], [0.0, 0.5]]).information() == pytest.approx(math.log(2))


def test_scalars_and_plain_data():
    figures = GateFigures(tasks=("a", "b"), layers={"x": layer([[1.0, 0.0], [0.0, 1.0]]), "y": layer([[0.5, 0.5]] * 2)})
    scalars = figures.scalars()
    assert scalars["gate/x/expert0"] == scalars["gate/y/expert1"] == 0.5
    assert scalars["gate/information"] == pytest.approx(math.log(2) / 2)
    assert scalars["gate/entropy"] == 0
    assert figures.average().weights == [[0.75, 0.25], [0.25, 0.75]]
    assert figures.plain()["layers"]["x"]["tokens"] == [10.0, 10.0]
    mixed = GateFigures(tasks=("a", "b"), layers={"x": layer([[1.0, 0.0]] * 2), "y": layer([[1.0]] * 2)})
    assert mixed.average() is None
    assert GateFigures(tasks=("a",), layers={}).scalars() == {}
