"""The runs behind the cells."""

import json
from dataclasses import replace

import pytest
import torch

from mmunify.ablate.plan import plan
from mmunify.ablate.runs import Runs
from mmunify.errors import TrainingError, UserError
from mmunify.recipe import Ablation
from mmunify.train.stages import train
from tests.ablate.arms import recipe_with

LATER = {"plain": {}, "wide": {"stages": {"mix": {"optim": {"lr": 0.01}}}}}


@pytest.fixture
def trained(monkeypatch):
    """Folders and stages that were trained."""
    done = []

    def recorded(recipe, out, **options):
        done.append((out.name.rpartition("-")[0], recipe.seed))
        return train(recipe, out=out, **options)

    monkeypatch.setattr("mmunify.ablate.runs.train", recorded)
    return done


def test_shared_stages_are_trained_once_and_equal_one_whole_run(llama_folder, tmp_path, trained):
    recipe = recipe_with(llama_folder, arms=LATER, seeds=[3])
    runs, cells = Runs(tmp_path / "stages", progress=False), plan(recipe)
    plain, wide = (runs.reach(cell) for cell in cells)
    assert trained == [("perceive", 3), ("mix", 3), ("mix", 3)]
    assert len(list((tmp_path / "stages").iterdir())) == 3
    whole = train(replace(recipe.arm("wide"), seed=3), out=tmp_path / "whole", progress=False)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(wide.model.state_dict()[name], tensor), name
    name = next(name for name in whole.model.state_dict() if name.endswith("low_rank.b"))
    assert not torch.equal(plain.model.state_dict()[name], wide.model.state_dict()[name])
    assert list(runs.records(cells[0])) == ["perceive", "mix"]


def test_a_finished_run_lends_its_equal_stages(llama_folder, tmp_path, trained):
    recipe = recipe_with(llama_folder, arms=LATER, seeds=[3], vary="mix")
    train(replace(recipe, stages=recipe.stages[:1], ablate=Ablation()), out=tmp_path / "before", progress=False)
    cell = plan(recipe)[0]
    runs = Runs(tmp_path / "stages", [tmp_path / "before"], progress=False)
    runs.reach(cell)
    state = json.loads((runs.path(cell) / "run.json").read_text())
    lent = json.loads((tmp_path / "before/run.json").read_text())
    assert state["stages"]["perceive"] == lent["stages"]["perceive"]
    assert (runs.path(cell) / "perceive").resolve() == tmp_path / "before/perceive"
    assert list(runs.records(cell)) == ["mix"]
    other = plan(replace(recipe, seed=recipe.seed + 1))[0]
    runs.reach(other)
    assert (runs.path(other, 0) / "perceive").resolve().parent == runs.path(other, 0)


def test_a_shared_stage_that_fails_is_not_tried_twice(llama_folder, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr("mmunify.ablate.runs.train", lambda recipe, **_: tried.append(1) or 1 / 0)
    cells = plan(recipe_with(llama_folder, arms=LATER, seeds=[3]))
    runs = Runs(tmp_path / "stages", progress=False)
    with pytest.raises(ZeroDivisionError):
        runs.reach(cells[0])
    with pytest.raises(TrainingError, match="stage 'perceive', shared with another cell, failed: ZeroDivisionError"):
        runs.reach(cells[1])
    assert tried == [1]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run in .*: it has no run.json"):
        Runs(tmp_path, [tmp_path])
