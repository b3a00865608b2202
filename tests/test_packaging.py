"""What a wheel holds: all modules, recipes and assets; and that the checks have their tools."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory):
    """Names inside a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of(folder: str) -> set[str]:
    """Files of a folder of the checkout, without caches."""
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in paths}


def test_the_whole_package_is_inside(wheel_files):
    assert files_of("mmunify") - wheel_files == set()
    assert "mmunify/py.typed" in wheel_files


def test_recipes_and_assets_are_inside(wheel_files):
    recipes = {f"mmunify/{name}" for name in files_of("recipes")}
    assert recipes and recipes <= wheel_files
    assert "mmunify/assets/tiny/handwriting_split.json" in wheel_files
    assert {"config.json", "model.safetensors"} <= {
        Path(n).name for n in wheel_files if n.startswith("mmunify/assets/")
    }


def test_nothing_else_is_inside(wheel_files):
    others = {name for name in wheel_files if not name.startswith("mmunify/")}
    assert {name.partition("/")[0].partition("-")[2] for name in others} == {
        f"{PROJECT['project']['version']}.dist-info"
    }
    assert any(name.endswith("licenses/LICENSE") for name in others)


def test_the_extras_bring_the_tools_of_the_checks():
    extras = PROJECT["project"]["optional-dependencies"]
    brought = {re.split(r"[\[<>=]", requirement)[0] for name in ("dev", "docs") for requirement in extras[name]}
    assert {"ruff", "pyright", "import-linter", "mkdocs", "hatchling", "pytest", "pre-commit"} <= brought


def test_versions_agree():
    from mmunify import __version__

    assert __version__ == PROJECT["project"]["version"]
