"""Importing mmunify loads nothing heavy; its public names appear on first use."""

import importlib
import subprocess
import sys

import pytest

import mmunify

HEAVY = ("torch", "transformers", "diffusers", "lightning", "timm", "peft", "numpy", "omegaconf", "typer", "sklearn")


def loaded_by(code: str) -> set[str]:
    """Heavy packages that a fresh interpreter has imported after `code`."""
    report = f"import sys; {code}; print(*[m for m in {HEAVY} if m in sys.modules], sep=',')"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.strip().splitlines()[-1].split(",")) - {""} if done.stdout.strip() else set()


def test_import_loads_nothing_heavy():
    assert loaded_by("import mmunify") == set()


def test_registries_and_errors_load_nothing_heavy():
    assert loaded_by("import mmunify; mmunify.ADAPTERS.names(); mmunify.errors.UserError; dir(mmunify)") == set()


def test_the_command_line_loads_neither_torch_nor_the_like():
    assert loaded_by("import mmunify.cli") == {"typer"}


def test_help_and_list_load_no_torch():
    loop = "for a in (['--help'], ['list']):\n  with contextlib.suppress(SystemExit): mmunify.cli.main(a)"
    code = f"import contextlib, mmunify.cli\n{loop}"
    assert "torch" not in loaded_by(f"exec({code!r})")


@pytest.mark.parametrize("name", sorted(set(mmunify.__all__) - {"Assistant"}))
def test_every_public_name_exists(name):
    assert getattr(mmunify, name) is not None


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(AttributeError, match="module 'mmunify' has no attribute 'Adapterz'"):
        _ = mmunify.Adapterz


def test_dir_lists_the_public_names():
    assert set(mmunify.__all__) <= set(dir(mmunify))


def test_a_name_is_the_object_of_its_module():
    assert mmunify.load_recipe is importlib.import_module("mmunify.recipe").load_recipe
    assert mmunify.ENCODERS is importlib.import_module("mmunify.registry").ENCODERS
