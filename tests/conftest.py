"""Tiny models and samples that many tests share; everything is written by the tests themselves."""

import hypothesis
import numpy as np
import pytest

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.testing import tiny_llama_folder
from mmunify.tokens import TokenRegistry
from mmunify.types import Media, Output, Sample, Text, Turn

# The same examples in every run: a change is judged by what it changes. `--hypothesis-profile=search` draws new ones.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.register_profile("search", max_examples=2000)
hypothesis.settings.load_profile("fixed")

TINY_CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """A tiny Llama with its tokenizer, as `save_pretrained` writes it."""
    return tiny_llama_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def nodes(llama_folder):
    """Nodes of a small image-in, image-out model."""
    return {
        "encoders": {"image": {"name": "clip", "config": TINY_CLIP, "layer": -2}},
        "adapters": {"image": {"name": "mlp", "depth": 2}},
        "backbone": {"name": "huggingface", "path": str(llama_folder)},
        "heads": {"text": {"name": "text"}, "image": {"name": "queries", "num_queries": 16}},
        "tokens": TokenRegistry(["segment", "generate_image"]),
    }


@pytest.fixture
def model(nodes):
    return compose(**nodes)


@pytest.fixture
def processor(model):
    return Processor(model.spec(), model.backbone.tokenizer, model.tokens)


@pytest.fixture
def make_sample():
    """sample(name, pictures, outputs, prompt): a random conversation of that make-up."""

    def make(name: str, pictures: int = 1, outputs: int = 0, prompt: bool = False) -> Sample:
        rng = np.random.default_rng(sum(map(ord, name)))
        picture = lambda: rng.integers(0, 255, (24 + len(name), 40, 3), dtype=np.uint8)  # noqa: E731
        asked = [Media(kind="image", source=picture()) for _ in range(pictures)]
        turns = [Turn(role="user", parts=(*asked, Text(text=f"look at {name}")))]
        if not prompt:
            drawn = [Output(kind="image", target=picture()) for _ in range(outputs)]
            turns.append(Turn(role="assistant", parts=(Text(text=f"this is {name}"), *drawn)))
        return Sample(turns=tuple(turns), id=name)

    return make
