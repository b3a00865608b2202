"""Options: one word picks a named change."""

import pytest

from mmunify.recipe import load_recipe

BASE = """
seed: 1
model:
  encoders: {image: {name: clip, config: {hidden_size: 8}}}
  backbone: {name: huggingface, config: {model_type: llama}}
  adapters: {image: {name: mlp, depth: 3}}
  heads: {text: {name: text}, image: {name: task_tokens}}
options:
  heads:
    default: words
    words: {}
    queries: {seed: 2, model: {heads: {image: {name: queries, num_queries: 4}}}}
  side:
    default: deep
    deep: {model: {adapters: {image: {depth: 7}}}}
    plain: {model: {adapters: {image: {name: linear}}}}
"""


@pytest.fixture
def recipes(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write, tmp_path / "base.yaml"


def read(recipe):
    return recipe.model.heads["image"]["name"], recipe.model.adapters["image"].get("depth"), recipe.seed


def test_the_default_is_merged_where_nothing_is_said(recipes):
    recipe = load_recipe(recipes[1])
    assert read(recipe) == ("task_tokens", 7, 1) and recipe.found == []


def test_one_word_on_the_command_line_picks_an_option(recipes):
    recipe = load_recipe(recipes[1], ["heads=queries", "side=plain"])
    assert read(recipe) == ("queries", None, 2)
    assert recipe.remarks()[-2:] == ["heads=queries (options: words, queries)", "side=plain (options: deep, plain)"]


def test_other_overrides_win_over_the_option(recipes):
    recipe = load_recipe(recipes[1], ["model.heads.image.num_queries=9", "heads=queries", "seed=5"])
    assert recipe.model.heads["image"]["num_queries"] == 9 and recipe.seed == 5


def test_a_recipe_based_on_it_may_choose_change_and_add_options(recipes):
    write, _ = recipes
    child = write(
        "child.yaml",
        "base: base.yaml\nheads: queries\noptions: {side: {wide: {model: {adapters: {image: {depth: 1}}}}}}\n",
    )
    assert read(load_recipe(child)) == ("queries", 7, 2)
    assert read(load_recipe(child, ["side=wide", "heads=words"])) == ("task_tokens", 1, 1)


def test_a_resolved_recipe_loads_as_itself_and_can_choose_again(recipes, tmp_path):
    recipe = load_recipe(recipes[1], ["heads=queries", "model.heads.image.num_queries=9"])
    saved = recipe.save(tmp_path / "saved.yaml")
    again = load_recipe(saved)
    assert again.model == recipe.model and again.options == recipe.options
    assert load_recipe(saved, ["side=plain"]).model.adapters["image"] == {"name": "linear"}


@pytest.mark.parametrize(
    ("text", "override", "path", "message"),
    [
        ("", "heads=querys", "heads", "no option named 'querys'; did you mean 'queries'"),
        ("options: {model: {default: a, a: {}}}", "", "options.model", "is a key of every recipe"),
        ("options: {size: {a: {}}}", "", "options.size.default", "no option named 'None'"),
        ("options: {size: {default: a, a: 3}}", "", "options.size.a", "wants keys of a recipe, got 3"),
    ],
)
def test_faults_name_the_group(recipes, text, override, path, message):
    write, _ = recipes
    recipe = load_recipe(write("child.yaml", f"base: base.yaml\n{text}\n"), [override] if override else [])
    faults = {fault.path: fault.message for fault in recipe.found}
    assert message in faults[path]
