"""ImageBind's blocks against attention written out, and their published names."""

import torch

from mmunify.encoders._imagebind_trunk import TrunkBlock, from_public, to_public
from mmunify.testing import randomize


def attend(block, states):
    """Multi-head attention with one more learned key and value, spelled out."""
    attention, (num_items, _, dim) = block.attention, states.shape
    query, key, value = (states @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    key = torch.cat([key, attention.bias_k.expand(num_items, 1, dim)], dim=1)
    value = torch.cat([value, attention.bias_v.expand(num_items, 1, dim)], dim=1)
    heads = attention.num_heads
    q, k, v = (x.unflatten(2, (heads, dim // heads)).transpose(1, 2) for x in (query, key, value))
    weights = (q @ k.transpose(2, 3) / (dim // heads) ** 0.5).softmax(dim=-1)
    return attention.out_proj((weights @ v).transpose(1, 2).flatten(2))


def test_a_block_is_its_formula():
    block = randomize(TrunkBlock(24, 3)).double().eval()
    tokens = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    middle = tokens + attend(block, block.attention_norm(tokens))
    wanted = middle + block.feed_forward(block.feed_forward_norm(middle))
    torch.testing.assert_close(block(tokens), wanted, atol=1e-10, rtol=0)
    torch.testing.assert_close(block.train()(tokens), wanted, atol=1e-10, rtol=0)


def test_dropped_paths_leave_an_item_as_it_is_and_only_in_training():
    torch.manual_seed(0)
    block = randomize(TrunkBlock(24, 3, drop_path=0.5))
    tokens = torch.randn(64, 2, 24)
    calm = block.eval()(tokens)
    dropped = block.train()(tokens)
    untouched = (dropped == tokens).flatten(1).all(dim=1)
    assert 4 < int(untouched.sum()) < 32
    assert torch.equal(block.eval()(tokens), calm)


def test_names_go_there_and_back():
    names = ["class_token", "patches.weight", "patch_norm.bias", "norm.weight", "project.weight"]
    names += [f"blocks.11.{name}" for name in TrunkBlock(8, 2).state_dict()]
    tensors = {name: torch.tensor(float(index)) for index, name in enumerate(names)}
    public = to_public(tensors)
    assert "modality_trunks.audio.blocks.11.attn.in_proj_weight" in public
    assert "modality_trunks.audio.blocks.11.mlp.fc2.bias" in public
    assert "modality_heads.audio.2.weight" in public
    others = {"modality_trunks.vision.blocks.0.norm_1.weight": torch.zeros(1)}
    assert from_public({**public, **others}) == tensors
