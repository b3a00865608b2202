"""Our pixel_shuffle = the connectors of Idefics3 and InternVL with mapped weights."""

import pytest
import torch
from transformers import Idefics3Config, InternVLConfig
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector
from transformers.models.llama4.modeling_llama4 import pixel_shuffle

from mmunify.adapters.pixel_shuffle import PixelShuffleAdapter
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features

TEXT = {"model_type": "llama", "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}


def answer(ours: PixelShuffleAdapter, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return ours(Features(tokens=tokens, grid=grid), Context()).tokens


@pytest.mark.parametrize("factor", [2, 3])
def test_equals_idefics3(factor):
    config = Idefics3Config(vision_config={"hidden_size": 6}, text_config=TEXT, scale_factor=factor)
    theirs = randomize(Idefics3Connector(config))
    ours = PixelShuffleAdapter(6, 12, factor=factor, bias=False)
    ours.load_state_dict({"project.0.weight": theirs.modality_projection.proj.weight})
    tokens = torch.randn(2, 36, 6)
    wanted = theirs(tokens)
    assert wanted.std() > 0.1
    torch.testing.assert_close(answer(ours, tokens, (6, 6)), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(4, 4), (2, 6)])
def test_equals_internvl(grid):
    vision = {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = InternVLConfig(vision_config=vision, text_config={**TEXT, "model_type": "qwen2"}, downsample_ratio=0.5)
    theirs = randomize(InternVLMultiModalProjector(config))
    ours = PixelShuffleAdapter(6, 12, depth=2, norm=True)
    names = {"norm": "layer_norm", "project.0": "linear_1", "project.2": "linear_2"}
    given = theirs.state_dict()
    weights = {f"{our}.{kind}": given[f"{their}.{kind}"] for our, their in names.items() for kind in ("weight", "bias")}
    ours.load_state_dict(weights)
    tokens = torch.randn(2, grid[0] * grid[1], 6)
    shuffled = InternVLModel.pixel_shuffle(None, tokens.unflatten(1, grid), scale_factor=0.5)
    wanted = theirs(shuffled.flatten(1, 2))
    torch.testing.assert_close(answer(ours, tokens, grid), wanted, atol=1e-5, rtol=0)


def test_orders_blocks_as_llama4():
    tokens = torch.randn(2, 16, 3)
    ours = PixelShuffleAdapter(3, 12, bias=False)
    ours.load_state_dict({"project.0.weight": torch.eye(12)})
    torch.testing.assert_close(answer(ours, tokens, (4, 4)), pixel_shuffle(tokens, 0.5))
