"""Every recipe that ships: it loads, has no faults, says what it is, and its stages let something learn."""

import pytest

from mmunify import train
from mmunify.paths import shipped_recipes
from mmunify.recipe import load_recipe

RECIPES = shipped_recipes()


def test_there_are_recipes():
    assert {"tiny/unifiedmllm", "tiny/pretrain/tower", "tiny/pretrain/backbone"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_no_faults(name):
    recipe = load_recipe(name)
    assert recipe.check() == []
    assert recipe.found == [] and recipe.notes == []


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_says_what_it_is(name):
    first, *_ = RECIPES[name].read_text("utf-8").splitlines()
    assert first.startswith("# ") and len(first) > 10, f"{name}: the first line is a comment that says what it is"


@pytest.mark.parametrize("name", RECIPES)
def test_file_and_name_load_the_same(name):
    assert load_recipe(RECIPES[name]) == load_recipe(name) == load_recipe(f"recipes/{name}.yaml")


@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_recipe_is_the_same_recipe(name, tmp_path):
    recipe = load_recipe(name)
    again = load_recipe(recipe.save(tmp_path / f"{recipe.name}.yaml"))
    assert again.check() == []
    assert again.to_dict() == recipe.to_dict()


@pytest.mark.parametrize(
    "override",
    [
        *(f"model.adapters.image.name={name}" for name in ("linear", "mlp", "qformer", "perceiver")),
        *(f"model.heads.image.name={name}" for name in ("task_tokens", "queries")),
        "stages.mix.model.tuners.0.name=lora",
    ],
)
def test_swaps_of_the_main_recipe_have_no_faults(override):
    assert load_recipe("tiny/unifiedmllm", [override]).check() == []


def test_all_faults_come_at_once():
    overrides = ["model.adapters.image.name=qfromer", "stages.adapt.steps=0", "trainer.acelerator=cpu"]
    faults = {fault.path: fault.message for fault in load_recipe("tiny/unifiedmllm", overrides).check()}
    assert faults.keys() == {"model.adapters.image.name", "stages.1.steps", "trainer.acelerator"}
    assert "did you mean 'qformer'" in faults["model.adapters.image.name"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("tiny/")])
def test_every_stage_of_a_tiny_recipe_trains(name, tmp_path):
    overrides = [f"stages.{stage.name}.steps=2" for stage in load_recipe(name).stages]  # B of a LoRA is 0 in the first
    recipe = load_recipe(name, [*overrides, *(f"stages.{s.name}.num_workers=0" for s in load_recipe(name).stages)])
    bundle = train(recipe, tmp_path / "run", progress=False)
    assert not bundle.model.training
