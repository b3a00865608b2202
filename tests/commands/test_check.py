"""`mmunify check`."""

import json

from mmunify.cli import main
from mmunify.errors import CheckpointError
from tests.recipe.trees import recipe_tree, write


def run(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_a_right_recipe(tmp_path, llama_folder, capsys):
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    assert run("check", file, "stages.mix.steps=5", "--json", tmp_path / "out/report.json") == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["faults"] == []
    assert set(report) == {"faults", "parts", "edges", "memory", "not_built", "budget", "per_gpu", "dry_run"}
    assert report["parts"]["adapters.image"]["total"] > 0
    assert set(report["memory"]) == {"perceive", "mix"}
    shown = capsys.readouterr().out
    assert "small: no faults" in shown
    assert "adapters.image" in shown


def test_all_faults_come_with_exit_code_2_and_in_the_file(tmp_path, llama_folder, capsys):
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    assert run("check", file, "model.adapters.image.name=qfromer", "sed=1", "--json", tmp_path / "r.json") == 2
    message = capsys.readouterr().err
    assert "the recipe has 2 faults:" in message
    assert "model.adapters.image.name: no adapter named 'qfromer'; did you mean 'qformer'? Known: " in message
    assert "Traceback" not in message
    listed = json.loads((tmp_path / "r.json").read_text())["faults"]
    assert {fault["path"] for fault in listed} == {"sed", "model.adapters.image.name"}


def test_weights_that_are_elsewhere_are_no_fault(tmp_path, llama_folder, capsys, monkeypatch):
    def compose(**nodes):
        raise CheckpointError(f"{nodes['backbone']['path']} is not on this machine")

    monkeypatch.setattr("mmunify.recipe.recipe.compose", compose)
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    assert run("check", file, "model.backbone.path=nobody/has-this", "--json", tmp_path / "r.json") == 0
    assert "note: sizes are unknown, nobody/has-this is not on this machine" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["faults"], report["not_built"]) == ([], "nobody/has-this is not on this machine")


def test_notes_are_printed(tmp_path, llama_folder, capsys):
    file = write(tmp_path / "small.yaml", recipe_tree(llama_folder))
    assert run("check", file, "model.adapters.image.name=linear", "experts.remove=null") == 0
    shown = capsys.readouterr().out
    assert "note: model.adapters.image: dropped depth=2 of the base, which adapter 'linear' doesn't take" in shown
    assert "note: tokens.tasks: no expert answers remove" in shown
