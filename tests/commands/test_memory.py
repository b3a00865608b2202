"""What a stage needs on each GPU."""

import pytest
import torch

from mmunify.commands.memory import is_half, num_processes, per_gpu, strategy_name
from mmunify.recipe import Recipe
from tests.train.small import small_recipe


@pytest.fixture
def recipe(llama_folder):
    return small_recipe(llama_folder)


def need(recipe, stage=0, **trainer):
    changed = Recipe.from_dict({**recipe.to_dict(), "trainer": trainer})
    return per_gpu(changed, changed.build(), changed.stages[stage], f"stages.{stage}", positions=100)


def test_one_process_holds_everything(recipe):
    model = recipe.build()
    total = sum(p.numel() for p in model.parameters())
    learns = sum(p.numel() for p in model.adapters.parameters())
    found = need(recipe)
    assert (found["weights"], found["gradients"], found["optimizer"]) == (4 * total, 4 * learns, 8 * learns)
    assert found["activations"] == 100 * 32 * 34 * 2 * 2  # positions, width, numbers per layer, layers, of four bytes
    assert found["total"] == sum(found[key] for key in ("weights", "gradients", "optimizer", "activations"))
    assert need(recipe, strategy="ddp", devices=4) == {**found, "processes": 4}


def test_sharding_divides_the_parts_that_learn(recipe):
    model = recipe.build()
    tower = sum(p.numel() for p in model.encoders.parameters())
    whole, split = need(recipe, 1), need(recipe, 1, strategy={"name": "fsdp2", "meta": True}, devices=2, num_nodes=2)
    backbone = sum(p.numel() for p in model.backbone.parameters())
    adapters = sum(p.numel() for p in model.adapters.parameters())
    assert split["processes"] == 4
    assert split["weights"] == 4 * (tower + adapters) + backbone, "frozen parts beside the backbone stay whole"
    assert (split["gradients"], split["optimizer"]) == (whole["gradients"] / 4, whole["optimizer"] / 4)
    second = need(recipe, 1, strategy="deepspeed_stage_2_offload", devices=4)
    assert (second["weights"], second["gradients"]) == (whole["weights"], whole["gradients"] / 4)


def test_precision_and_recomputation(recipe):
    full, half, mixed = need(recipe), need(recipe, precision="bf16-true"), need(recipe, precision="bf16-mixed")
    assert half["weights"] == full["weights"] / 2 == mixed["weights"] / 2
    assert half["activations"] == mixed["activations"] == full["activations"] / 2
    assert need(recipe, recompute=True)["activations"] < full["activations"]
    recipe.stages[0].precision = "bf16-true"
    assert is_half(recipe, recipe.stages[0]) and not is_half(recipe, recipe.stages[1])


def test_processes_and_names(monkeypatch):
    assert [num_processes(t) for t in ({}, {"devices": "3"}, {"devices": [0, 2], "num_nodes": 2})] == [1, 3, 4]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert num_processes({"devices": "auto"}) == num_processes({"devices": -1}) == 8
    assert [strategy_name({"strategy": each}) for each in ("ddp", "deepspeed_stage_3_offload", {"name": "fsdp2"})] == [
        "ddp",
        "deepspeed_stage_3",
        "fsdp2",
    ]
    assert strategy_name({}) == "auto"
