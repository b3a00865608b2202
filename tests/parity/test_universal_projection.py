"""Blocks of our universal_projection = transformers' Llama layers without rotation and without a causal mask."""

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from mmunify.adapters.universal_projection import UniversalProjectionAdapter
from mmunify.parts import Context
from mmunify.testing import random_features, randomize

PIECES = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.expand": "mlp.up_proj",
    "feed_forward.reduce": "mlp.down_proj",
}


def build_block(block: torch.nn.Module, seed: int) -> LlamaDecoderLayer:
    """Theirs with random weights, which ours gets too."""
    config = LlamaConfig(
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=256,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
    )
    theirs = randomize(LlamaDecoderLayer(config, layer_idx=0), seed=seed).eval()
    given = theirs.state_dict()
    weights = {f"{our}.weight": given[f"{name}.weight"] for our, name in PIECES.items()}
    assert len(weights) == len(given), "a tensor of theirs has no place in ours"
    block.load_state_dict(weights)
    return theirs


def test_equals_llama_layers_mixed_by_normalised_sigmoids():
    torch.manual_seed(0)
    ours = randomize(
        UniversalProjectionAdapter(8, 12, num_queries=3, num_experts=2, depth=2, dim=16, num_heads=2)
    ).eval()
    features = random_features(8, (2, 3))
    own = ours.kinds["image"]
    states = torch.cat([own.queries.expand(2, -1, -1), own.project_in(features.tokens)], dim=1)
    shares = own.router(states)[:, :3].sigmoid()
    still = (torch.ones(1, 9, 8), torch.zeros(1, 9, 8))
    mixed = torch.zeros(2, 3, 16)
    for seed, blocks in enumerate(ours.experts):
        said = states
        for depth, block in enumerate(blocks):
            said = build_block(block, 10 * seed + depth)(said, position_embeddings=still)
        mixed += said[:, :3] * shares[:, :, seed, None] / shares.sum(-1, keepdim=True)
    wanted = own.project_out(mixed)
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours(features, Context()).tokens, wanted, atol=1e-5, rtol=0)
