"""`list`, `show` and `cp`."""

import pytest
import yaml
from typer.testing import CliRunner

from mmunify import paths
from mmunify.cli import app
from mmunify.commands.catalogue import describe, part_summaries, recipe_summaries
from mmunify.errors import UserError
from mmunify.recipe import load_recipe
from mmunify.registry import ADAPTERS, ALL, METRICS
from tests.recipe.trees import write

RUNNER = CliRunner()


def run(*arguments):
    return RUNNER.invoke(app, list(map(str, arguments)), catch_exceptions=True)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site/package")
    write(tmp_path / "site/recipes/tiny/parent.yaml", "# The parent of all.\nseed: 5\n")
    write(tmp_path / "site/recipes/tiny/sub/child.yaml", "# A child.\nbase: ../parent.yaml  # relative\nchat: plain\n")


def test_every_shipped_part_says_what_it_is():
    for registry in ALL:
        for name, summary in part_summaries(registry).items():
            assert summary.strip(), f"{registry.kind} {name} has no docstring"


def test_parts_of_plugins_are_listed_without_being_read():
    with METRICS.temporary("from_elsewhere", print):
        assert part_summaries(METRICS)["from_elsewhere"] == "from a plug-in"


@pytest.mark.parametrize("kind", ["adapters", "adapter"])
def test_list_of_a_kind(kind):
    done = run("list", kind)
    assert done.exit_code == 0
    assert all(name in done.stdout for name in ADAPTERS.names())
    assert "encoders" not in done.stdout


def test_list_of_everything(shipped):
    done = run("list")
    assert all(f"{registry.kind}s" in done.stdout for registry in ALL)
    assert "The parent of all." in done.stdout
    assert recipe_summaries() == {"tiny/parent": "The parent of all.", "tiny/sub/child": "A child."}


def test_an_unknown_kind():
    assert isinstance(run("list", "adpters").exception, UserError)
    assert "no kind named 'adpters'; did you mean 'adapters'?" in str(run("list", "adpters").exception)


def test_show_has_signature_docstring_and_contract():
    text = describe(ADAPTERS, "mlp")
    assert text.startswith("adapter mlp  (mmunify.adapters.mlp.MLPAdapter)")
    assert "  depth: int = 2\n" in text
    assert "  in_dim: int\n" in text
    assert "LLaVA" in text
    assert "Contract mmunify.parts.Adapter: Features -> Embeds" in text
    assert run("show", "mlp").stdout.startswith(text.splitlines()[0])


def test_every_shipped_part_can_be_shown():
    for registry in ALL:
        for name in registry.names():
            assert describe(registry, name).startswith(f"{registry.kind} {name}  (")


def test_show_of_an_unknown_name():
    assert "no part named 'qfromer'; did you mean 'qformer'?" in str(run("show", "qfromer").exception)


def test_a_copied_recipe_still_finds_its_base(shipped, tmp_path):
    target = tmp_path / "mine/my.yaml"
    assert run("cp", "tiny/sub/child", target).exit_code == 0
    assert yaml.safe_load(target.read_text())["base"] == "tiny/parent"
    recipe = load_recipe(target)
    assert (recipe.seed, recipe.chat, recipe.name) == (5, "plain", "my")


def test_copies_go_into_folders_and_overwrite_nothing(shipped, tmp_path):
    assert run("cp", "recipes/tiny/parent.yaml", tmp_path / "folder").exit_code == 0
    assert (tmp_path / "folder/parent.yaml").is_file()
    (tmp_path / "folder/parent.yaml").write_text("mine")
    assert "exists; choose another destination or give --force" in str(
        run("cp", "tiny/parent", tmp_path / "folder").exception
    )
    assert (tmp_path / "folder/parent.yaml").read_text() == "mine"
    assert run("cp", "tiny/parent", tmp_path / "folder", "--force").exit_code == 0
    assert "seed: 5" in (tmp_path / "folder/parent.yaml").read_text()


def test_cp_of_an_unknown_recipe(shipped, tmp_path):
    assert "no shipped recipe named 'tiny/parnt'; did you mean 'tiny/parent'?" in str(
        run("cp", "tiny/parnt", tmp_path).exception
    )
