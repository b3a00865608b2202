"""A small recipe as a plain tree, for the tests of recipes and commands."""

from pathlib import Path
from typing import Any

import yaml

from tests.conftest import TINY_CLIP


def recipe_tree(llama_folder: str | Path, **changes: Any) -> dict[str, Any]:
    """Image in, image out, three tasks of which two have an expert, two stages."""
    tree = {
        "seed": 3,
        "model": {
            "encoders": {"image": {"name": "clip", "config": TINY_CLIP, "layer": -2}},
            "adapters": {"image": {"name": "mlp", "depth": 2}},
            "backbone": {"name": "huggingface", "path": str(llama_folder)},
            "tuners": [{"name": "lora_moe", "match": "*.mlp.*_proj", "rank": 2, "num_experts": 2}],
            "heads": {"text": {"name": "text"}, "image": {"name": "queries", "num_queries": 16}},
            "weights": {"text": 1.0, "image": 6.0},
        },
        "tokens": {"tasks": ["segment", "remove"], "grounding": "box"},
        "experts": {"segment": {"name": "region_segmentation"}, "remove": {"name": "inpaint_removal"}},
        "stages": [
            {
                "name": "perceive",
                "learns": ["adapters.*", "heads.image.*"],
                "steps": 4,
                "batch_size": 2,
                "data": [{"name": "digit_world", "weight": 1.0}],
                "optim": {"lr": 1e-3},
            },
            {
                "name": "mix",
                "learns": ["*.low_rank.*"],
                "steps": 2,
                "data": [{"name": "digit_world"}],
                "weights": {"image": 0.0},
            },
        ],
        "trainer": {"accelerator": "cpu"},
    }
    return {**tree, **changes}


def write(path: Path, tree: Any) -> Path:
    """Write a tree (or a text) as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
    return path
