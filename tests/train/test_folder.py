import json

import pytest

from mmunify.errors import UserError
from mmunify.train.folder import RunFolder

IDENTITY = {"seed": 0, "stages": [{"name": "a", "betas": (0.9, 0.99)}]}


def open_folder(out, resume=False, **changes) -> RunFolder:
    return RunFolder.open(out, "toy", {**IDENTITY, **changes}, resume)


def test_a_run_goes_on_where_it_was(tmp_path):
    folder = open_folder(tmp_path / "run")
    folder.checkpoint("a").touch()
    folder.finish("a", {"steps": 3})
    again = open_folder(tmp_path / "run", resume=True)
    assert again.is_finished("a") and not again.is_finished("b")
    assert again.records == {"a": {"steps": 3}}
    assert not folder.checkpoint("a").exists()


def test_resuming_nothing_starts(tmp_path):
    assert open_folder(tmp_path / "run", resume=True).records == {}


def test_a_run_is_not_overwritten(tmp_path):
    open_folder(tmp_path / "run")
    with pytest.raises(UserError, match=r"run already holds a run; go on with it \(--resume\)"):
        open_folder(tmp_path / "run")


def test_another_recipe_is_not_resumed(tmp_path):
    open_folder(tmp_path / "run")
    with pytest.raises(UserError, match="has another seed than the recipe"):
        open_folder(tmp_path / "run", resume=True, seed=1)


def test_default_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [open_folder(None).path, open_folder(None).path, open_folder(None, resume=True).path]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["runs/toy", "runs/toy-2", "runs/toy-2"]


def test_state_is_plain_json(tmp_path):
    folder = open_folder(tmp_path / "run")
    assert json.loads((folder.path / "run.json").read_text())["identity"]["stages"][0]["betas"] == [0.9, 0.99]
