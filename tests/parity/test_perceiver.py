"""Our perceiver = transformers' Idefics resampler with mapped weights (its query and key norms off)."""

import pytest
import torch
from transformers import IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from mmunify.adapters.perceiver import PerceiverAdapter
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features

PIECES = {
    "memory_norm": "0.context_layer_norm",
    "latents_norm": "0.latents_layer_norm",
    "attention.query": "0.q_proj",
    "attention.key": "0.k_proj",
    "attention.value": "0.v_proj",
    "attention.output": "0.output_proj",
    "feed_forward_norm": "1.ln",
    "feed_forward.expand": "1.fc",
    "feed_forward.reduce": "1.c_proj",
}


def their_name(name: str) -> str:
    """blocks.0.attention.query.weight -> blocks.0.0.q_proj.weight"""
    if not name.startswith("blocks."):
        return name.replace("norm.", "layer_norm.")
    _, index, piece = name.split(".", 2)
    head, _, kind = piece.rpartition(".")
    return f"blocks.{index}.{PIECES[head]}.{kind}"


def build_pair(depth: int):
    config = IdeficsConfig(
        vision_config={"embed_dim": 12}, perceiver_config={"use_resampler": True, "qk_layer_norms_perceiver": False}
    )
    theirs = randomize(
        IdeficsPerceiverResampler(config, embed_dim=12, depth=depth, n_heads=3, head_dim=5, n_latents=4)
    ).eval()
    ours = PerceiverAdapter(in_dim=12, out_dim=12, num_queries=4, depth=depth, num_heads=3, head_dim=5).eval()
    given = theirs.state_dict()
    weights = {name: given[their_name(name)] for name in ours.state_dict() if not name.startswith("project")}
    assert len(weights) == len(given), "a tensor of theirs has no place in ours"
    ours.load_state_dict({**weights, "project.weight": torch.eye(12), "project.bias": torch.zeros(12)})
    return ours, theirs


@pytest.mark.parametrize("depth", [1, 3])
def test_equals_idefics(depth):
    torch.manual_seed(0)
    ours, theirs = build_pair(depth)
    tokens = torch.randn(2, 7, 12)
    answer = ours(Features(tokens=tokens), Context()).tokens
    assert answer.std() > 0.1
    torch.testing.assert_close(answer, theirs(tokens), atol=1e-5, rtol=0)


def test_masked_tokens_are_as_good_as_absent():
    torch.manual_seed(0)
    ours, theirs = build_pair(2)
    tokens = torch.randn(2, 7, 12)
    mask = torch.arange(7).expand(2, 7) < 4
    answer = ours(Features(tokens=tokens, mask=mask), Context()).tokens
    torch.testing.assert_close(answer, theirs(tokens[:, :4]), atol=1e-5, rtol=0)
