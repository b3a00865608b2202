"""Paths of this machine are made absolute; hub ids are left alone."""

from pathlib import Path

import mmunify
from mmunify import paths

PACKAGE = Path(mmunify.__file__).parent


def test_assets_lie_in_the_package():
    assert paths.resolve_path("assets:tiny/tower") == str(PACKAGE / "assets/tiny/tower")


def test_local_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert paths.resolve_path("./tower") == str(tmp_path / "tower")
    assert paths.resolve_path("~/tower") == str(tmp_path / "home/tower")
    assert paths.resolve_path("/data/x") == "/data/x"


def test_hub_ids_stay():
    assert paths.resolve_path("openai/clip-vit-large-patch14") == "openai/clip-vit-large-patch14"
    assert not paths.is_local("openai/clip")


def test_only_path_arguments_and_assets_of_a_node_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = {
        "name": "x",
        "path": "./a",
        "index_path": "./b",
        "opens": "./c",
        "inner": {"path": "~/x"},
        "list": ["assets:d"],
    }
    resolved = paths.resolve_paths(node)
    assert resolved["path"] == str(tmp_path / "a")
    assert resolved["index_path"] == str(tmp_path / "b")
    assert resolved["opens"] == "./c"
    assert resolved["list"] == [str(PACKAGE / "assets/d")]
    assert node["path"] == "./a"


def test_recipes_of_a_checkout_and_of_a_wheel(tmp_path, monkeypatch):
    (tmp_path / "recipes/tiny").mkdir(parents=True)
    (tmp_path / "recipes/tiny/a.yaml").touch()
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "package")
    assert paths.shipped_recipes() == {"tiny/a": tmp_path / "recipes/tiny/a.yaml"}
    (tmp_path / "package/recipes").mkdir(parents=True)
    (tmp_path / "package/recipes/b.yaml").touch()
    assert list(paths.shipped_recipes()) == ["b"]


def test_a_shipped_recipe_has_several_spellings(tmp_path, monkeypatch):
    file = tmp_path / "recipes/tiny/a.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "package")
    for name in ("tiny/a", "tiny/a.yaml", "recipes/tiny/a.yaml", "./recipes/tiny/a"):
        assert paths.shipped_recipe(name) == file
    assert paths.shipped_recipe("a") is None
