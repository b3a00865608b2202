"""Finding and reading recipe files, and importing what they name."""

import sys

import pytest

from mmunify import paths
from mmunify.errors import RecipeError, UserError
from mmunify.recipe.files import find_recipe, import_modules, read_chain, read_yaml
from mmunify.registry import METRICS
from tests.recipe.trees import write


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A recipe that ships with the package."""
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site/package")
    return write(tmp_path / "site/recipes/tiny/parent.yaml", {"seed": 1, "chat": "vicuna"})


def test_files_come_before_shipped_names(tmp_path, shipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tiny/parent") == shipped
    assert find_recipe("recipes/tiny/parent.yaml") == shipped
    own = write(tmp_path / "tiny/parent", {"seed": 2})
    assert find_recipe("tiny/parent").resolve() == own


def test_a_missing_recipe_lists_those_that_ship(shipped):
    with pytest.raises(
        UserError, match="no file 'tiny/parnet', and no shipped recipe named 'tiny/parnet'; did you mean 'tiny/p"
    ):
        find_recipe("tiny/parnet")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="is a folder; a recipe is a YAML file"):
        find_recipe(tmp_path)


def test_bases_come_eldest_first(tmp_path, shipped):
    write(tmp_path / "middle.yaml", {"base": "tiny/parent", "seed": 2})
    child = write(tmp_path / "sub/child.yaml", {"base": "../middle.yaml", "seed": 3})
    assert [tree["seed"] for tree in read_chain(child)] == [1, 2, 3]
    assert all("base" not in tree for tree in read_chain(child))


def test_a_circle_of_bases_is_named(tmp_path):
    write(tmp_path / "a.yaml", {"base": "b.yaml"})
    write(tmp_path / "b.yaml", {"base": "./a"})
    with pytest.raises(RecipeError, match=r"base: leads in a circle: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        read_chain(tmp_path / "a.yaml")


def test_a_missing_base_names_both_places(tmp_path):
    child = write(tmp_path / "child.yaml", {"base": "nothing.yaml"})
    with pytest.raises(
        RecipeError, match=r"base: of .*child\.yaml: no file .*nothing\.yaml, and no shipped recipe named"
    ):
        read_chain(child)
    with pytest.raises(RecipeError, match="base: wants the path or the name of a recipe, got 3"):
        read_chain(write(tmp_path / "number.yaml", {"base": 3}))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "must hold a YAML mapping"), ("- a\n- b", "must hold a YAML mapping"), ("a: [1", "cannot be read as"),
     ("a: 1\na: 2", "cannot be read as")],
)  # fmt: skip
def test_files_that_hold_no_recipe(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_yaml(write(tmp_path / "x.yaml", text))


def test_unreadable_bytes_name_the_file(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match=r"x\.yaml cannot be read"):
        read_yaml(tmp_path / "x.yaml")


def test_numbers_are_read_as_numbers(tmp_path):
    assert read_yaml(write(tmp_path / "x.yaml", "lr: 1e-4\nname: ${seed}\n")) == {"lr": 1e-4, "name": "${seed}"}


# ------------------------------------------------------------------------------------------- imports


@pytest.fixture
def part_file(tmp_path):
    code = "from mmunify.registry import METRICS\n@METRICS.register('{0}')\ndef part(): ...\n"
    yield lambda file, name: write(tmp_path / file, code.format(name))
    for name in ("from_file", "from_module"):
        METRICS._objects.pop(name, None)
    for module in [m for m in sys.modules if m.startswith(("mmunify_user_", "own_parts"))]:
        del sys.modules[module]


def test_files_and_modules_beside_the_recipe(tmp_path, part_file):
    part_file("parts.py", "from_file")
    part_file("own_parts/metrics.py", "from_module")
    recipe = write(tmp_path / "r.yaml", {"imports": ["./parts.py", "own_parts.metrics"]})
    before = list(sys.path)
    assert import_modules(read_chain(recipe)[0]["imports"], tmp_path) == []
    assert {"from_file", "from_module"} <= set(METRICS.names())
    assert sys.path == before


def test_a_file_is_imported_once(tmp_path, part_file):
    file = str(part_file("parts.py", "from_file"))
    assert import_modules([file, file], tmp_path) == []
    first = METRICS.get("from_file")
    assert import_modules([file], tmp_path) == []
    assert METRICS.get("from_file") is first


def test_whatever_a_module_raises_is_a_fault(tmp_path, part_file):
    write(tmp_path / "broken.py", "1 / 0")
    part_file("taken.py", "caption")
    faults = import_modules(
        ["no_such_module_x", str(tmp_path / "broken.py"), str(tmp_path / "taken.py"), "gone.py"], tmp_path
    )
    assert [fault.path for fault in faults] == ["imports.0", "imports.1", "imports.2", "imports.3"]
    assert "ModuleNotFoundError: No module named 'no_such_module_x'" in faults[0].message
    assert "ZeroDivisionError" in faults[1].message
    assert "is already registered by" in faults[2].message
    assert "FileNotFoundError" in faults[3].message
