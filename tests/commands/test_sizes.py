"""What `check` counts."""

import pytest
import torch

from mmunify.commands.sizes import build_light, edges, inspect_recipe
from mmunify.recipe import load_recipe
from tests.recipe.trees import recipe_tree, write


@pytest.fixture
def recipe(tmp_path, llama_folder):
    return load_recipe(write(tmp_path / "small.yaml", recipe_tree(llama_folder)))


def test_parts_are_counted_per_stage(recipe):
    report = inspect_recipe(recipe)
    model = recipe.build()
    numbers = {name: sum(p.numel() for p in part.parameters()) for name, part in model.adapters.items()}
    assert report["faults"] == []
    assert report["parts"]["adapters.image"] == {
        "total": numbers["image"],
        "trained": {"perceive": numbers["image"], "mix": 0},
    }
    assert report["parts"]["encoders.image"]["trained"] == {"perceive": 0, "mix": 0}
    low_rank = sum(p.numel() for name, p in model.named_parameters() if ".low_rank." in name)
    assert sum(row["trained"]["mix"] for row in report["parts"].values()) == low_rank > 0
    assert sum(row["total"] for row in report["parts"].values()) == sum(p.numel() for p in model.parameters())


def test_memory_is_that_of_weights_gradients_and_adamw(recipe):
    report = inspect_recipe(recipe)
    trained = sum(row["trained"]["perceive"] for row in report["parts"].values())
    total = sum(row["total"] for row in report["parts"].values())
    assert report["memory"]["perceive"] == {"weights": 4 * total, "gradients": 4 * trained, "optimizer": 8 * trained}


def test_edges_have_widths(recipe):
    found = {(edge["from"], edge["to"]): edge["dim"] for edge in edges(recipe.build())}
    assert found == {
        ("encoders.image", "adapters.image"): 32,
        ("adapters.image", "backbone"): 32,
        ("backbone", "heads.text"): 32,
        ("backbone", "heads.image"): 32,
    }


def test_globs_that_match_nothing_are_faults(tmp_path, llama_folder):
    tree = recipe_tree(llama_folder)
    tree["stages"][1]["learns"] = ["*.lowrank.*"]
    report = inspect_recipe(load_recipe(write(tmp_path / "r.yaml", tree)))
    assert [fault.path for fault in report["faults"]] == ["stages.1.learns.0"]


def test_a_recipe_with_faults_is_not_built(tmp_path, llama_folder, monkeypatch):
    tree = recipe_tree(llama_folder, sed=3)
    monkeypatch.setattr("mmunify.recipe.recipe.compose", lambda **nodes: pytest.fail("built"))
    report = inspect_recipe(load_recipe(write(tmp_path / "r.yaml", tree)))
    assert [fault.path for fault in report["faults"]] == ["sed"]
    assert report["parts"] == {}


def test_inline_configs_take_no_memory(tmp_path, llama_folder):
    tree = recipe_tree(llama_folder, stages=[], experts={}, tokens={})
    decoder = {"image": {"name": "pixel_decoder", "from": "encoders.image", "grid": 4}}
    tree["model"] = {"encoders": tree["model"]["encoders"], "detokenizers": decoder}
    recipe = load_recipe(write(tmp_path / "r.yaml", tree))
    model = build_light(recipe)
    assert {p.device for p in model.parameters()} == {torch.device("meta")}
    assert set(inspect_recipe(recipe)["parts"]) == {"encoders.image", "detokenizers.image"}


def test_edges_say_how_many_tokens_flow(recipe):
    found = {(edge["from"], edge["to"]): edge["tokens"] for edge in edges(recipe.build())}
    assert found == {
        ("encoders.image", "adapters.image"): 16,
        ("adapters.image", "backbone"): 16,
        ("backbone", "heads.text"): None,
        ("backbone", "heads.image"): 16,
    }


def test_a_head_without_a_backbone_reads_its_encoder():
    model = load_recipe("tiny/pretrain/tower").build()
    assert edges(model) == [{"from": "encoders.image", "to": "heads.patches", "dim": 128, "tokens": None}]


def test_models_of_stages_are_shown_once_each(recipe):
    seen = []
    inspect_recipe(recipe, lambda model, index: seen.append((index, next(model.parameters()).device.type)))
    assert [index for index, _ in seen] == [0, 1]
