"""A small recipe with real parts, and data of its own, for whole runs in a second or two."""

from pathlib import Path

import numpy as np

from mmunify.recipe import Recipe
from mmunify.registry import DATASETS
from mmunify.types import Media, Output, Sample, Text, Turn

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
    """Talks of different lengths, of several tasks in turn; some show one picture, some two, every third shows none."""

    def __init__(self, size: int = 40, blind: bool = False, tasks: tuple[str, ...] | list[str] = ("question",)) -> None:
        self.size, self.blind, self.tasks = size, blind, tasks

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        pictures = 0 if self.blind else index % 3
        shown = [Media(kind="image", source=rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(pictures)]
        asked = Turn(role="user", parts=(*shown, Text(text="count " + "on " * (index % 5))))
        said = Turn(role="assistant", parts=(Text(text="one two three"[: 3 + index % 9]),))
        return Sample(turns=(asked, said), id=f"talk-{index}", task=self.tasks[index % len(self.tasks)])


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


WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "num_mel_bins": 8,
    "max_source_positions": 5,
}


@DATASETS.register("wide_talk")
class WideTalk:
    """Talks with a picture, with a sound, with a picture to draw, with words alone: few of each, so a rank of a small
    batch often lacks one of them."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        picture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        heard = Media(kind="audio", source=(rng.normal(size=1600).astype(np.float32) / 8, 16_000))
        shown = {1: (Media(kind="image", source=picture),), 2: (heard,)}.get(index % 5, ())
        drawn = (Output(kind="image", target=picture),) if index % 5 == 3 else ()
        asked = Turn(role="user", parts=(*shown, Text(text="say " + "so " * (index % 4))))
        said = Turn(role="assistant", parts=(Text(text="one two three"[: 3 + index % 9]), *drawn))
        name = ("words", "see", "hear", "draw", "words")[index % 5]
        return Sample(turns=(asked, said), id=f"{name}-{index}", task="segment" if index % 2 else "")


def wide_recipe(llama: str | Path, **changes) -> Recipe:
    """The same stages with sound and pictures that go in, and learnable queries for pictures that come out. Of three
    frozen towers, one is read by the queries alone."""
    tree = small_recipe(llama).to_dict()
    tree["model"]["encoders"] |= {
        "eye": {"name": "clip", "kind": "image", "config": CLIP},
        "audio": {"name": "hf_audio", "config": WHISPER},
    }
    tree["model"]["adapters"]["audio"] = {"name": "mlp"}
    tree["model"]["heads"]["image"] = {"name": "queries", "num_queries": 4, "target": "eye"}
    for stage in tree["stages"]:
        stage["learns"] = [*stage["learns"], "heads.image.*"]
        stage["data"] = [{"name": "wide_talk"}]
    return Recipe.from_dict({**tree, **changes})
