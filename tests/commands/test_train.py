"""`mmunify train`: what it hands to the trainer."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmunify.cli import app
from mmunify.errors import RecipeError
from tests.recipe.trees import recipe_tree, write


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setattr("mmunify.train.stages.train", lambda recipe, **options: found.append((recipe, options)))
    return found


def test_recipe_overrides_and_options_arrive(tmp_path, llama_folder, calls):
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    overrides = ["model.adapters.image.name=linear", "stages.mix.steps=3"]
    done = CliRunner().invoke(app, ["train", str(file), *overrides, "--resume", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    [(recipe, options)] = calls
    assert recipe.model.adapters["image"] == {"name": "linear"}
    assert recipe.stages[1].steps == 3
    assert options == {"out": tmp_path / "run", "resume": True, "stage": None}
    assert "note: model.adapters.image: dropped depth=2" in done.output
    assert f"mmunify eval {tmp_path / 'run'}" in done.output


def test_the_folder_of_the_run(tmp_path, llama_folder, calls):
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    done = CliRunner().invoke(app, ["train", str(file)])
    assert calls[0][1] == {"out": None, "resume": False, "stage": None}
    assert f"mmunify eval {Path('runs/small')}" in done.output


def test_nothing_is_trained_with_faults(tmp_path, llama_folder, calls):
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    done = CliRunner().invoke(app, ["train", str(file), "stages.mix.steps=0"])
    assert isinstance(done.exception, RecipeError)
    assert calls == []
