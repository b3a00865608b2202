"""README, CONTRIBUTING and docs/: their Python runs, their recipes have no faults, their commands exist."""

import importlib.util
import inspect
import os
import re
import shlex
import sys

import pytest
import torch
import typer.main

from mmunify.cli import app
from mmunify.recipe import Recipe, load_recipe
from mmunify.recipe.files import read_yaml
from mmunify.registry import ALL
from tests.docs_blocks import PAGES, ROOT, Block, blocks, page_name

NOT_RUN: dict[str, str] = {}
"""Page -> why its blocks that can't run can't; every one of them is listed here."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory; what a page registers or imports is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = {registry.kind: set(registry._objects) for registry in ALL}
    with torch.random.fork_rng(devices=[]):
        yield tmp_path
    for registry in ALL:
        for name in set(registry._objects) - before[registry.kind]:
            if registry.file(name) is None:
                del registry._objects[name]
    for name in [name for name, module in sys.modules.items() if _lies_in(module, tmp_path)]:
        del sys.modules[name]


def _lies_in(module, folder) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


def run_page(page, place) -> dict:
    """Write the page's titled blocks as files, run the others in order; returns what the last one knows."""
    known: dict = {"__name__": "__main__"}
    for block in blocks(page, "python", "yaml"):
        if block.reason:
            continue
        if block.file:
            write_file(block, place)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), known)
    return known


def write_file(block: Block, place) -> None:
    """A titled block; a part or a test of this package is imported as if it lay there, tests are run."""
    file = place / block.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text, encoding="utf-8")
    if block.file.startswith(("mmunify/", "tests/")):
        module = load_module(block.file.removesuffix(".py").replace("/", "."), file)
        for name, test in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                test()


def load_module(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [p for p in PAGES if list(blocks(p, "python"))], ids=page_name)
def test_python_blocks_run(page, place):
    run_page(page, place)


def test_blocks_that_do_not_run_are_listed():
    left_out = {block.name.partition(":")[0]: block.reason for page in PAGES for block in blocks(page) if block.reason}
    assert left_out == NOT_RUN


@pytest.mark.parametrize("block", [b for p in PAGES for b in blocks(p, "yaml") if not b.reason], ids=lambda b: b.name)
def test_recipes_have_no_faults(block, place):
    for other in blocks(block.page):
        if other.file:
            write_file(other, place)
    (place / "recipe.yaml").write_text(block.text, encoding="utf-8")
    assert load_recipe("recipe.yaml").check() == []


def commands() -> list[str]:
    """Every line of a console block that calls mmunify."""
    texts = [block.text.replace("\\\n", " ") for page in PAGES for block in blocks(page, "bash", "console")]
    lines = [re.sub(r"\s+#.*$", "", line).removeprefix("$ ").strip() for text in texts for line in text.splitlines()]
    return sorted({line for line in lines if line.startswith("mmunify ")})


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line, place):
    """Command, options and arguments are parsed, not run; recipes and overrides are checked."""
    group = typer.main.get_command(app)
    _, *words = shlex.split(line)
    if words[0].startswith("-"):
        return
    command = group.get_command(None, words[0])
    assert command is not None, f"mmunify has no command {words[0]!r}"
    context = command.make_context(words[0], words[1:])
    recipe = context.params.get("recipe")
    if recipe is not None and not recipe.startswith("my"):  # my_recipe.yaml is a block of its page
        assert load_recipe(recipe, context.params.get("overrides") or []).check() == []


def test_the_readme_recipe_is_the_readme_python(place):
    """The README shows one composition twice: all parameters are the same."""
    readme = ROOT / "README.md"
    model = run_page(readme, place)["model"]
    (text,) = [block.text for block in blocks(readme, "yaml") if not block.reason]
    (place / "again.yaml").write_text(text, encoding="utf-8")
    recipe = Recipe.from_dict(read_yaml(place / "again.yaml"))
    ours, theirs = dict(model.named_parameters()), dict(recipe.build().named_parameters())
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_readme_composition_is_short():
    first = next(block for block in blocks(ROOT / "README.md", "python"))
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 25


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_ci_runs_the_test_command_of_the_readme():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test\n" in script.read_text()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
