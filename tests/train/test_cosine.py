import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmunify.train.cosine import gradient_cosines
from mmunify.train.stages import train
from mmunify.types import HeadOutput, StepReport
from tests.train.small import small_recipe
from tests.train.worlds import toy_batch

TASKS = ("none", "ask", "draw", "sing")


class Pull(nn.Module):
    """Every document pulls the weight towards a direction of its own; task 3 has a weight to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, batch):
        pulls = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])[batch.task]
        sums = pulls @ self.weight + (batch.task == 3) * self.own
        table = torch.stack([sums, torch.ones_like(sums)])
        heads = {"text": HeadOutput(documents={"ce": table})}
        weights = {"text/ce": 2.0}
        return StepReport(
            losses={"text/ce": sums.sum()}, counts={"text/ce": table[1].sum()}, weights=weights, outputs=heads
        )


def batches(*tasks: list[int]):
    return [replace(toy_batch(*range(len(own))), task=torch.tensor(own)) for own in tasks]


def cosines(model, given) -> dict[str, float]:
    def backward(loss_of):
        for batch in given:
            loss_of(batch, model(batch)).backward()

    return gradient_cosines(model, given, TASKS, backward)


def test_cosine_over_weights_that_both_tasks_reach():
    model = Pull()
    found = cosines(model, batches([1, 2], [2, 1, 1]))
    assert found == {"gradient_cosine/ask/draw": pytest.approx(0.5**0.5)}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tasks_that_share_no_weight_are_left_out():
    assert set(cosines(Pull(), batches([1, 2, 3]))) == {"gradient_cosine/ask/draw"}


def test_one_task_has_nothing_to_compare():
    assert cosines(Pull(), batches([1, 1])) == {}


def test_a_look_every_few_steps_changes_nothing(llama_folder, tmp_path):
    """Dropout is on: the step draws what it would have drawn."""
    seen, weights = [], []
    for every in (0, 2):
        recipe = small_recipe(llama_folder)
        del recipe.stages[0]
        (stage,) = recipe.stages
        stage.data = [{"name": "small_talk", "tasks": ["segment", ""]}]
        stage.gradient_cosine, stage.batch_size = every, 4
        bundle = train(recipe, tmp_path / str(every), progress=False)
        weights.append(bundle.model.state_dict())
        lines = (tmp_path / str(every) / "logs" / "mix" / "metrics.csv").read_text().splitlines()
        rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
        seen.append([float(row.get("gradient_cosine/none/segment", "nan")) for row in rows])
        assert all(float(row["loss/task/segment/text/cross_entropy"]) > 0 for row in rows)
    assert all(math.isnan(value) for value in [*seen[0], *seen[1][1::2]])
    assert all(-1 <= value <= 1 for value in seen[1][::2])
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
