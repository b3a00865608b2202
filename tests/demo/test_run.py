"""Pieces of the demo, and (slow) the demo itself."""

import json

import pytest

from mmunify.demo.run import LEAST_STEPS, RECIPE, Clock, free_folder, run_demo, shorten
from mmunify.recipe import Recipe, load_recipe


def recipe(*steps):
    return Recipe.from_dict({"stages": [{"name": f"s{i}", "steps": number} for i, number in enumerate(steps)]})


@pytest.mark.parametrize(
    ("factor", "steps"), [(1.0, [30, 400]), (9.0, [30, 400]), (0.5, [LEAST_STEPS, 200]), (0.001, [LEAST_STEPS] * 2)]
)
def test_stages_are_shortened_in_proportion_and_never_lengthened(factor, steps):
    assert [stage.steps for stage in shorten(recipe(30, 400), factor).stages] == steps


def test_a_stage_shorter_than_the_least_stays_as_it_is():
    assert shorten(recipe(5), 0.1).stages[0].steps == 5


def test_the_shipped_recipe_has_no_fault_and_three_stages():
    loaded = load_recipe(RECIPE)
    assert loaded.check() == []
    assert [stage.name for stage in loaded.stages] == ["perceive", "adapt", "mix"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo" / "mine.txt").write_text("keep")
    (tmp_path / "demo-2").write_text("a file")
    assert free_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_the_clock_remembers_every_step(capsys):
    clock = Clock(shown=True)
    with clock("first"):
        pass
    assert list(clock.seconds) == ["first"]
    assert "first" in capsys.readouterr().out
    with Clock(shown=False)("second"):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_demo_learns_and_writes_everything(tmp_path):
    folder = run_demo(tmp_path / "demo", seconds=60, progress=False, num_samples=20)
    before, after = (json.loads((folder / f"{name}.json").read_text()) for name in ("before", "after"))
    assert after["question"]["accuracy"]["value"] > before["question"]["accuracy"]["value"]
    assert after["routing"]["accuracy"]["value"] > 0.8
    assert after["parse"]["rate"]["value"] > 0.8
    assert (folder / "sheet.png").is_file()
    assert "## Dialogue" in (folder / "report.md").read_text()
