"""Recipes from file to model."""

import pytest
import torch

from mmunify.composer import compose
from mmunify.errors import RecipeError, UserError
from mmunify.recipe import Recipe, Stage, load_recipe
from mmunify.registry import METRICS
from mmunify.tokens import TokenRegistry
from tests.recipe.trees import write


def faults(recipe):
    return [str(fault).partition(" Known")[0] for fault in recipe.check()]


def test_a_recipe_without_faults(recipe_file):
    recipe = load_recipe(recipe_file)
    assert recipe.check() == []
    assert recipe.remarks() == []
    assert (recipe.name, recipe.seed, [stage.name for stage in recipe.stages]) == ("small", 3, ["perceive", "mix"])
    assert isinstance(recipe.stages[0], Stage)
    assert recipe.stages[0].optim.lr == 1e-3


def test_a_recipe_builds_what_the_same_lines_of_python_build(recipe_file, tree):
    built = load_recipe(recipe_file).build()
    composed = compose(**tree["model"], tokens=TokenRegistry(["segment", "remove"]), seed=3)
    assert built.weights == composed.weights
    assert built.state_dict().keys() == composed.state_dict().keys()
    for name, tensor in composed.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name


def test_every_fault_at_once(recipe_file):
    overrides = [
        "sed=1",
        "model.encoders.image.name=clop",
        "model.adapters.image.dept=3",
        "model.heads.image.num_queries=many",
        "model.weights.imgae=1",
        "experts.segment.name=region_segmentaton",
        "stages.mixx.steps=1",
        "stages.perceive.optim.lr=fast",
        "stages.mix.learns=[]",
        "stages.mix.data.0.tsaks=[caption]",
        "trainer.devcies=2",
        "chat=vicunya",
        "model.backbone.path=./nowhere",
    ]
    found = [text.partition(":")[0] for text in faults(load_recipe(recipe_file, overrides))]
    assert sorted(found) == sorted([
        "sed", "model.encoders.image.name", "model.adapters.image.dept", "model.heads.image.num_queries",
        "model.weights.imgae", "experts.segment.name", "stages.mixx", "stages.0.optim.lr", "stages.1.learns",
        "stages.1.data.0.tsaks", "trainer.devcies", "chat", "model.backbone.path",
    ])  # fmt: skip


def test_build_raises_every_fault_before_anything_is_built(recipe_file):
    recipe = load_recipe(recipe_file, ["model.adapters.image.dept=3", "stages.mix.steps=0"])
    with pytest.raises(RecipeError, match="2 faults") as caught:
        recipe.build()
    assert {fault.path for fault in caught.value.faults} == {"model.adapters.image.dept", "stages.1.steps"}


def test_a_trained_model_needs_no_training_data(recipe_file):
    recipe = load_recipe(recipe_file, ["stages.mix.data=[{name: jsonl, path: ./gone.jsonl}]"])
    assert [fault.path for fault in recipe.check()] == ["stages.1.data.0.path"]
    assert recipe.check(training=False) == []
    assert recipe.build(training=False) is not None


@pytest.mark.parametrize("name", ["mlp", "qformer", "perceiver", "linear"])
def test_adapters_are_swapped_by_their_name_alone(recipe_file, name):
    recipe = load_recipe(recipe_file, [f"model.adapters.image.name={name}"])
    assert recipe.check() == []
    assert type(recipe.build().adapters["image"]).__module__ == f"mmunify.adapters.{name}"


@pytest.mark.parametrize("name", ["task_tokens", "queries"])
def test_heads_are_swapped_by_their_name_alone(recipe_file, name):
    recipe = load_recipe(recipe_file, [f"model.heads.image.name={name}"])
    assert recipe.check() == []
    dropped = [note for note in recipe.notes if "num_queries=16" in note]
    assert len(dropped) == (name == "task_tokens")


def test_overrides_do_not_depend_on_their_order(recipe_file):
    overrides = ["model.adapters.image.hidden_dm=3", "model.adapters.image.name=linear"]
    for order in (overrides, overrides[::-1]):
        assert "model.adapters.image.hidden_dm" in [fault.path for fault in load_recipe(recipe_file, order).check()]


def test_a_child_changes_its_base(tmp_path, recipe_file):
    child = write(
        tmp_path / "sub/child.yaml",
        {
            "base": "../small.yaml",
            "model": {"adapters": {"image": {"name": "linear"}}},
            "stages": {"mix": {"steps": 7}},
        },
    )
    recipe = load_recipe(
        child, ["stages.0.steps=9", "model.heads.image=null", "model.weights={text: 2.0, image: null}"]
    )
    assert recipe.name == "child"
    assert [stage.steps for stage in recipe.stages] == [9, 7]
    assert recipe.model.adapters == {"image": {"name": "linear"}}
    assert list(recipe.model.heads) == ["text"]
    assert recipe.notes == ["model.adapters.image: dropped depth=2 of the base, which adapter 'linear' doesn't take"]


def test_a_text_is_no_recipe(tmp_path):
    assert faults(load_recipe(write(tmp_path / "r.yaml", "just words")))[0] == "just words: no key 'just words'."


def test_imports_bring_parts(tmp_path, tree):
    write(
        tmp_path / "own.py", "from mmunify.registry import METRICS\n@METRICS.register('own_metric')\ndef own(): ...\n"
    )
    recipe = load_recipe(write(tmp_path / "r.yaml", {**tree, "imports": ["own.py", "gone.py"]}))
    assert "own_metric" in METRICS.names()
    assert [fault.path for fault in recipe.check()] == ["imports.1"]
    METRICS._objects.pop("own_metric")


def test_interpolations(tmp_path, tree):
    tree["stages"][1]["steps"] = "${stages.0.steps}"
    assert load_recipe(write(tmp_path / "r.yaml", tree)).stages[1].steps == 4
    tree["stages"][1]["steps"] = "${nothing.there}"
    found = load_recipe(write(tmp_path / "r.yaml", tree)).check()
    assert any("nothing.there" in str(fault) for fault in found)


# ------------------------------------------------------------------------------------------- stages


def test_a_stage_has_its_own_model_and_weights(recipe_file):
    recipe = load_recipe(recipe_file, ["stages.mix.model.adapters.image={name: linear}"])
    assert recipe.check() == []
    assert recipe.at("perceive").model.adapters["image"]["name"] == "mlp"
    assert recipe.at("mix").model.adapters["image"] == {"name": "linear"}
    assert recipe.at(1).model.weights == {"text": 1.0, "image": 0.0}
    assert recipe.model.weights == {"text": 1.0, "image": 6.0}
    assert any("depth=2" in note for note in recipe.at("mix").notes)
    with pytest.raises(UserError, match=r"no stage 'mixx' in recipe 'small'; it has \['perceive', 'mix'\]"):
        recipe.at("mixx")


def test_faults_of_a_stages_model_are_reported_at_the_stage(recipe_file):
    recipe = load_recipe(recipe_file, ["stages.mix.model.adapters.image.dept=3", "stages.mix.weights.imgae=1"])
    assert [fault.path for fault in recipe.check()] == ["stages.1.model.adapters.image.dept", "stages.1.weights.imgae"]
    typo = load_recipe(recipe_file, ["stages.mix.model.adapter.image.depth=3"])
    assert [fault.path for fault in typo.check()] == ["stages.1.model.adapter"]


def test_faults_of_the_model_are_reported_once(recipe_file):
    recipe = load_recipe(recipe_file, ["model.adapters.image.dept=3", "stages.mix.model.heads.text.chunk=64"])
    assert [fault.path for fault in recipe.check()] == ["model.adapters.image.dept"]


# ------------------------------------------------------------------------------------------- trees


def test_saved_and_loaded_is_the_same_recipe(tmp_path, recipe_file):
    recipe = load_recipe(recipe_file, ["stages.mix.optim.groups=[{match: x, lr: 0.1}]"])
    again = load_recipe(recipe.save(tmp_path / "out/saved.yaml"))
    assert again.to_dict() == recipe.to_dict()
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_tree_from_elsewhere_may_not_import(tree):
    with pytest.raises(
        RecipeError, match="imports: would run the code of evil.module; allow it if you trust its author"
    ):
        Recipe.from_dict({**tree, "imports": ["evil.module"]}, allow_imports=False)


def test_a_recipe_can_be_written_in_python(tree):
    recipe = Recipe.from_dict({"model": tree["model"]})
    recipe.stages = [Stage(name="a", steps=0, learns=["*"], data=[{"name": "digit_world"}])]
    wanted = ["stages.0.steps: give exactly one of steps, epochs, tokens; got none"]
    assert [str(fault) for fault in recipe.check()] == wanted


def test_experts_are_built_by_task(recipe_file):
    experts = load_recipe(recipe_file).build_experts()
    assert {task: expert.tasks for task, expert in experts.items()} == {"segment": ("segment",), "remove": ("remove",)}
