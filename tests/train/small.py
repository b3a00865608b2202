"""A small recipe with real parts, and data of its own, for whole runs in a second or two."""

from pathlib import Path

import numpy as np

from mmunify.recipe import Recipe
from mmunify.registry import DATASETS
from mmunify.types import Media, Sample, Text, Turn

CLIP = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


@DATASETS.register("small_talk")
class SmallTalk:
    """Talks of different lengths; some show one picture, some two, every third shows none."""

    def __init__(self, size: int = 40, blind: bool = False) -> None:
        self.size, self.blind = size, blind

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        pictures = 0 if self.blind else index % 3
        shown = [Media(kind="image", source=rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(pictures)]
        asked = Turn(role="user", parts=(*shown, Text(text="count " + "on " * (index % 5))))
        said = Turn(role="assistant", parts=(Text(text="one two three"[: 3 + index % 9]),))
        return Sample(turns=(asked, said), id=f"talk-{index}", task="question")


def small_recipe(llama: str | Path, **changes) -> Recipe:
    """Two stages: adapters, then low-rank experts with dropout."""
    stage = {"steps": 6, "batch_size": 2, "data": [{"name": "small_talk"}]}
    tree = {
        "name": "small",
        "model": {
            "encoders": {"image": {"name": "clip", "config": CLIP}},
            "adapters": {"image": {"name": "mlp"}},
            "backbone": {"name": "huggingface", "path": str(llama)},
            "tuners": [{"name": "lora", "match": "*.mlp.*_proj", "rank": 2, "dropout": 0.2}],
            "heads": {"text": {"name": "text"}},
        },
        "tokens": {"tasks": ["segment"]},
        "stages": [
            {"name": "perceive", "learns": ["adapters.*"], **stage},
            {"name": "mix", "learns": ["*.low_rank.*"], **stage},
        ],
        "trainer": {"accelerator": "cpu"},
    }
    return Recipe.from_dict({**tree, **changes})
