"""`mmunify ablate`: what it hands over, and `mmunify check` of a recipe with arms."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mmunify.cli import app
from tests.commands.test_check import run
from tests.recipe.trees import recipe_tree, write

FAST = ("--samples", "0", "--no-dry-run")
ARMS = {"low": {}, "high": {"model": {"tuners": {0: {"rank": 4}}}}}


@pytest.fixture
def recipe_file(tmp_path, llama_folder):
    return write(tmp_path / "small.yaml", recipe_tree(llama_folder, ablate={"arms": ARMS, "seeds": [0]}))


@pytest.mark.parametrize(("failed", "code"), [([], 0), (["an arm"], 1)])
def test_recipe_and_options_arrive_and_failures_change_the_exit_code(recipe_file, tmp_path, monkeypatch, failed, code):
    calls = []
    found = SimpleNamespace(failed=failed)
    monkeypatch.setattr("mmunify.ablate.run.ablate", lambda recipe, **given: calls.append((recipe, given)) or found)
    arguments = ["ablate", str(recipe_file), "ablate.seeds=[5]", "--out", str(tmp_path / "o"), "--reuse", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    [(recipe, given)] = calls
    assert recipe.ablate.seeds == [5]
    assert given == {"out": tmp_path / "o", "reuse": [tmp_path]}


def test_check_reports_the_arms(recipe_file, tmp_path, capsys):
    assert run("check", recipe_file, *FAST, "--json", tmp_path / "r.json") == 0
    shown = capsys.readouterr().out
    assert "small: no faults" in shown and "arm high: no faults" in shown
    arms = json.loads((tmp_path / "r.json").read_text())["arms"]
    low, high = (arms[name]["parts"]["backbone (low-rank)"]["trained"]["mix"] for name in ("low", "high"))
    assert low < high


def test_check_finds_what_only_the_built_arm_shows(recipe_file, capsys):
    assert run("check", recipe_file, *FAST, 'ablate.arms.high.stages.mix.learns=["nothing.*"]') == 2
    assert "ablate.arms.high.stages.1.learns.0: 'nothing.*' matches no parameter" in capsys.readouterr().err
