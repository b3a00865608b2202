"""The same model from a recipe and from a few lines of Python: equal names, weights and outputs."""

import inspect

import torch
import yaml

import mmunify
from mmunify.composer import part_seed
from mmunify.data.processor import Processor
from mmunify.registry import ADAPTERS, BACKBONES, ENCODERS, HEADS, TUNERS
from tests.conftest import TINY_CLIP

TASKS = ["segment", "generate_image"]


def in_python(llama_folder):
    tokens = mmunify.TokenRegistry(TASKS)
    with part_seed(7, "encoders.image"):
        encoder = ENCODERS.get("clip")(config=TINY_CLIP, layer=-2)
    backbone = BACKBONES.get("huggingface")(path=str(llama_folder))
    with part_seed(7, "adapters.image"):
        adapter = ADAPTERS.get("mlp")(in_dim=encoder.out_dim, out_dim=backbone.dim, depth=2)
    with part_seed(7, "heads.image"):
        drawing = HEADS.get("queries")(in_dim=backbone.dim, target_dim=encoder.out_dim, num_queries=16)
    return mmunify.compose(
        encoders={"image": encoder},
        adapters={"image": adapter},
        backbone=backbone,
        heads={"text": HEADS.get("text")(), "image": drawing},
        tuners=[TUNERS.get("lora_moe")(match="*.mlp.*_proj", rank=2, num_experts=2)],
        weights={"image": 6.0},
        tokens=tokens,
        seed=7,
    )


def from_recipe(llama_folder, folder):
    recipe = {
        "seed": 7,
        "model": {
            "encoders": {"image": {"name": "clip", "config": TINY_CLIP, "layer": -2}},
            "adapters": {"image": {"name": "mlp", "depth": 2}},
            "backbone": {"name": "huggingface", "path": str(llama_folder)},
            "tuners": [{"name": "lora_moe", "match": "*.mlp.*_proj", "rank": 2, "num_experts": 2}],
            "heads": {"text": {"name": "text"}, "image": {"name": "queries", "num_queries": 16}},
            "weights": {"image": 6.0},
        },
        "tokens": {"tasks": TASKS},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return mmunify.load_recipe(path).build()


def test_recipe_equals_python(llama_folder, tmp_path, make_sample):
    written, recipe = in_python(llama_folder), from_recipe(llama_folder, tmp_path)
    left, right = written.state_dict(), recipe.state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert written.spec() == recipe.spec()
    samples = [make_sample("a", 1, 1), make_sample("bb", 2, 0)]
    reports = [
        model(Processor(model.spec(), model.backbone.tokenizer, model.tokens)(samples)) for model in (written, recipe)
    ]
    assert torch.equal(reports[0].total, reports[1].total)


def test_the_python_way_is_short():
    assert len(inspect.getsource(in_python).splitlines()) <= 25
