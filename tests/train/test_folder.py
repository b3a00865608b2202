import json

import pytest

from mmunify.errors import UserError
from mmunify.train.folder import RunFolder, differences

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
    with pytest.raises(UserError, match=r"(?s)started with another recipe.*  seed: 0 -> 1"):
        open_folder(tmp_path / "run", resume=True, seed=1)


def test_all_differences_are_listed(tmp_path):
    open_folder(tmp_path / "run")
    stages = [{"name": "a", "betas": (0.9, 0.95), "new": None}, {"name": "b"}]
    with pytest.raises(UserError) as caught:
        open_folder(tmp_path / "run", resume=True, stages=stages)
    assert str(caught.value).splitlines()[1:] == [
        "  stages.0.betas.1: 0.99 -> 0.95",
        "  stages.0.new: (absent) -> null",
        '  stages.1: (absent) -> {"name": "b"}',
    ]
    assert len(differences(dict.fromkeys(range(30), 0), dict.fromkeys(range(30), 1))) == 30


def test_default_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [open_folder(None).path, open_folder(None).path, open_folder(None, resume=True).path]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["runs/toy", "runs/toy-2", "runs/toy-2"]


def test_state_is_plain_json(tmp_path):
    folder = open_folder(tmp_path / "run")
    assert json.loads((folder.path / "run.json").read_text())["identity"]["stages"][0]["betas"] == [0.9, 0.99]
