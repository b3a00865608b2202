"""Names and shapes of the public checkpoints."""

import torch

from mmunify.encoders._qwen_vit import from_public, to_public
from mmunify.encoders.vit_attention_pool import ViTAttentionPoolEncoder
from mmunify.testing import randomize

TINY = {"size": 8, "patch_size": 4, "dim": 8, "depth": 1, "num_heads": 2, "hidden_dim": 12, "num_queries": 4}
BLOCK = ("attn.in_proj", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
PUBLIC = {
    *(f"transformer.resblocks.0.{name}.{kind}" for name in BLOCK for kind in ("weight", "bias")),
    *(f"{name}.{kind}" for name in ("ln_pre", "ln_post") for kind in ("weight", "bias")),
    *(f"attn_pool.{name}.{kind}" for name in ("attn.out_proj", "ln_kv", "ln_q") for kind in ("weight", "bias")),
    *("attn_pool.attn.in_proj_weight", "attn_pool.attn.in_proj_bias", "attn_pool.kv_proj.weight"),
    *("attn_pool.query", "attn_pool.pos_embed", "conv1.weight", "positional_embedding", "proj"),
}


def test_names_and_back():
    tensors = randomize(ViTAttentionPoolEncoder(**TINY, out_dim=16)).state_dict()
    public = to_public(tensors, num_heads=2)
    assert set(public) == PUBLIC
    back = from_public(public, num_heads=2)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_a_blocks_projections_lie_head_by_head():
    tensors = randomize(ViTAttentionPoolEncoder(**TINY, out_dim=16)).state_dict()
    joined = to_public(tensors, num_heads=2)["transformer.resblocks.0.attn.in_proj.weight"]
    query, key, value = (tensors[f"blocks.0.attention.{role}.weight"] for role in ("query", "key", "value"))
    wanted = torch.cat([query[:4], key[:4], value[:4], query[4:], key[4:], value[4:]])
    assert torch.equal(joined, wanted)


def test_the_pools_projections_lie_one_after_the_other():
    tensors = randomize(ViTAttentionPoolEncoder(**TINY, out_dim=16)).state_dict()
    joined = to_public(tensors, num_heads=2)["attn_pool.attn.in_proj_bias"]
    wanted = torch.cat([tensors[f"pool.attention.{role}.bias"] for role in ("query", "key", "value")])
    assert torch.equal(joined, wanted)


def test_fixed_positions_have_the_column_in_front():
    table = to_public(ViTAttentionPoolEncoder(**TINY, out_dim=16).state_dict(), 2)["attn_pool.pos_embed"]
    assert torch.equal(table[0, :8], table[2, :8])  # cells (0, 0) and (1, 0): same column
    assert torch.equal(table[0, 8:], table[1, 8:])  # cells (0, 0) and (0, 1): same row
    torch.testing.assert_close(table[1, 0], torch.tensor(1.0).sin())
