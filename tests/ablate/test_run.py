"""Whole ablations."""

import json

import pytest

import mmunify
from mmunify.ablate.run import ablate
from mmunify.errors import RecipeError
from mmunify.evaluate.statistics import Measure
from tests.ablate.arms import recipe_with


@pytest.fixture
def measured(monkeypatch):
    """Bundles that were measured, by a metric that depends on their seed."""
    seen = []

    def evaluate(bundle, protocols, num_samples, **options):
        seen.append((bundle, protocols, num_samples))
        return {"question": {"accuracy": Measure(bundle.recipe.seed / 10, num_samples, 0.0, 1.0)}}

    monkeypatch.setattr("mmunify.ablate.run.evaluate", evaluate)
    return seen


def test_every_arm_and_seed_ends_in_one_table_and_is_done_once(llama_folder, tmp_path, measured):
    wide = {"stages": {"mix": {"model": {"tuners": {0: {"rank": 4}}}, "fresh": ["*.low_rank.*"]}}}
    arms = {"plain": {}, "wide": wide}
    recipe = recipe_with(llama_folder, seeds=[1, 3], before="perceive", vary="mix", arms=arms)
    found = ablate(recipe, tmp_path / "out", progress=False)
    assert [protocols for _, protocols, _ in measured] == [["question"]] * 5
    rows = found.summary()
    assert list(rows) == ["after perceive", "plain", "wide"]
    assert rows["after perceive"]["trained"] is None and rows["after perceive"]["seconds"] is None
    assert rows["plain"]["measures"]["question/accuracy"].mean == pytest.approx(0.2)
    assert rows["plain"]["measures"]["question/accuracy"].n == 2
    assert rows["wide"]["trained"] == 2 * rows["plain"]["trained"] > 0
    assert rows["plain"]["seconds"].mean > 0
    cell = json.loads((tmp_path / "out/cells/plain-seed3.json").read_text())
    assert (tmp_path / "out" / cell["run"] / "mix/model.safetensors").is_file()
    again = ablate(recipe, tmp_path / "out", progress=False)
    assert len(measured) == 5
    assert again.outcomes == found.outcomes


def test_an_arm_that_fails_is_recorded_and_the_others_go_on(llama_folder, tmp_path, measured, capsys):
    arms = {"broken": {"stages": {"mix": {"learns": ["nothing.*"]}}}, "plain": {}}
    found = ablate(recipe_with(llama_folder, seeds=[1], arms=arms), tmp_path, progress=True)
    assert [outcome.arm for outcome in found.failed] == ["broken"]
    assert "RecipeError" in found.failed[0].error and "'nothing.*' matches no parameter" in found.failed[0].error
    assert "Traceback" in json.loads((tmp_path / "cells/broken-seed1.json").read_text())["trace"]
    assert found.summary()["plain"]["measures"]["question/accuracy"].mean == pytest.approx(0.1)
    assert "broken | 0 (1 failed)" in (tmp_path / "table.md").read_text()
    assert "2 of 2: plain, seed 1" in capsys.readouterr().out


def test_faults_of_arms_are_raised_before_anything_runs(llama_folder, tmp_path):
    arms = {"typo": {"stages": {"mix": {"stepz": 3}}}, "deep": {"model": {"tuners": {0: {"rnk": 3}}}}}
    with pytest.raises(RecipeError, match=r"ablate\.arms\.typo\.stages\.1\.stepz: no key 'stepz'") as caught:
        ablate(recipe_with(llama_folder, arms=arms), tmp_path / "out", progress=False)
    assert "ablate.arms.deep.model.tuners.0.rnk" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_real_evaluation_through_the_package(llama_folder, tmp_path):
    found = mmunify.ablate(recipe_with(llama_folder, seeds=[1], arms={"plain": {}}), tmp_path, progress=False)
    assert not found.failed
    assert found.outcomes[0].values["question"]["accuracy"]["n"] == 2
