"""Everything that is known before a run."""

import pytest

from mmunify.commands.preflight import preflight, try_stage
from mmunify.recipe import Recipe
from tests.train.small import small_recipe


@pytest.fixture
def recipe(llama_folder):
    return small_recipe(llama_folder)


def test_every_stage_is_measured_and_tried(recipe):
    report = preflight(recipe, 10, dry_run=True)
    assert report["faults"] == []
    for key in ("budget", "per_gpu", "dry_run"):
        assert set(report[key]) == {"perceive", "mix"}
    assert report["dry_run"]["mix"]["loss"] > 0
    assert report["per_gpu"]["perceive"]["activations"] > 0


def test_without_data_and_steps(recipe):
    report = preflight(recipe, 0, dry_run=False)
    assert report["budget"] == {"perceive": None, "mix": None} and report["dry_run"] == {}
    longest = recipe.max_length * recipe.stages[0].batch_size
    assert report["per_gpu"]["perceive"]["activations"] == longest * 32 * 34 * 2 * 2


def test_data_that_cannot_be_opened_is_a_fault_of_its_stage(recipe):
    tree = recipe.to_dict()
    tree["stages"][1]["data"] = [{"name": "jsonl", "path": "nowhere.jsonl"}]
    report = preflight(Recipe.from_dict(tree), 10, dry_run=True)
    assert [fault.path for fault in report["faults"]] == ["stages.1.data"]
    assert report["dry_run"] == {}


def test_data_smaller_than_a_batch_over_all_processes_is_a_fault_of_its_stage(recipe):
    recipe.trainer |= {"devices": 4}
    recipe.stages[1].batch_size = 10
    assert preflight(recipe, 10, dry_run=False)["faults"] == []
    recipe.stages[1].batch_size = 11
    (fault,) = preflight(recipe, 10, dry_run=False)["faults"]
    assert fault.path == "stages.1.data"
    assert "have 40 samples, fewer than a batch of 11 on each of 4 processes; lower batch_size" in fault.message


def test_a_step_that_fails_is_a_fault_of_its_stage(recipe):
    tree = recipe.to_dict()
    tree["max_length"] = 20
    report = preflight(Recipe.from_dict(tree), 0, dry_run=True)
    assert [fault.path for fault in report["faults"]] == ["stages.0", "stages.1"]
    assert "a step with its first samples fails: sample " in report["faults"][0].message


def test_large_models_are_not_built(recipe, monkeypatch):
    monkeypatch.setattr("mmunify.commands.preflight.TINY", 1000)
    assert preflight(recipe, 0, dry_run=True)["dry_run"] == {}


def test_a_loss_that_is_not_finite(recipe, monkeypatch):
    build = Recipe.build

    def broken(self, training=True):
        model = build(self, training)
        model.adapters["image"].layers[0].weight.data.fill_(float("nan"))
        return model

    monkeypatch.setattr(Recipe, "build", broken)
    with pytest.raises(RuntimeError, match="its loss is nan"):
        try_stage(recipe, 0)
