import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from mmunify.checkpoint.family import as_shaped, backbone_node, fill, fit_of, pixel_settings, require_pixels
from mmunify.composer import compose
from mmunify.errors import CheckpointError
from tests.conftest import TINY_CLIP


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head, self.queries = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False), nn.Linear(2, 4)
        self.head.weight = self.table.weight


def tensors():
    return {"table.weight": torch.ones(3, 2), "queries.weight": torch.ones(1, 4, 2), "queries.bias": torch.ones(4)}


@pytest.mark.parametrize("held", ["table.weight", "head.weight"])
def test_a_tied_tensor_needs_one_of_its_names_and_sides_of_one_do_not_matter(held):
    module, given = Tied(), tensors()
    given[held] = given.pop("table.weight")
    fill(module, given, "x")
    assert all(bool((tensor == 1).all()) for tensor in module.state_dict().values())


def test_nothing_is_filled_if_anything_differs():
    module, given = Tied(), tensors() | {"queries.weight": torch.ones(2, 4), "more": torch.ones(1)}
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    del given["queries.bias"]
    with pytest.raises(CheckpointError, match=r"tensors of x don't fit \(3 differences\)") as caught:
        fill(module, given, "x")
    for line in ("queries.bias: missing", "more: has no place", "queries.weight: shape [2, 4], the model has [4, 2]"):
        assert line in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_names_that_may_be_absent():
    given = tensors() | {"idle.weight": torch.ones(1)}
    del given["queries.bias"]
    module = Tied()
    bias = module.state_dict()["queries.bias"].clone()
    fill(module, given, "x", lacking=("queries.",), idle=("idle.",))
    filled = module.state_dict()
    assert torch.equal(filled["queries.weight"], given["queries.weight"][0])
    assert torch.equal(filled["queries.bias"], bias)


def test_only_sides_of_one_are_added_or_dropped():
    turned = torch.ones(2, 3)
    assert as_shaped(turned, torch.ones(3, 2)) is turned
    assert as_shaped(turned, torch.ones(1, 2, 1, 3)).shape == (1, 2, 1, 3)


def test_the_node_of_a_language_model():
    node = backbone_node(LlamaConfig(hidden_size=32, rope_theta=5e5), torch.bfloat16, tied=True)
    assert node["dtype"] == "bfloat16" and node["config"]["model_type"] == "llama"
    assert node["config"]["tie_word_embeddings"] and "transformers_version" not in node["config"]
    assert node["config"]["rope_parameters"]["rope_theta"] == 5e5


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_settings_of_pictures_there_and_back(fit):
    model = compose(encoders={"image": {"name": "clip", "config": TINY_CLIP, "fit": fit}})
    settings = pixel_settings(model)
    assert fit_of(settings) == fit
    assert settings["crop_size"] == {"height": 32, "width": 32}
    require_pixels(model, settings, "x")
    with pytest.raises(CheckpointError, match=r"x normalises pictures with image_mean \(0.5, 0.5, 0.5\), our encoder"):
        require_pixels(model, {"image_mean": [0.5] * 3}, "x")
