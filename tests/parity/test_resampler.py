"""Our resampler without positions = Aria's cross-attention, whose additional linears are set to one."""

import pytest
import torch
from transformers import AriaConfig
from transformers.models.aria.modeling_aria import AriaCrossAttention

from mmunify.adapters.resampler import ResamplerAdapter
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features


def build_pair():
    vision = {"model_type": "idefics3_vision", "hidden_size": 16, "num_attention_heads": 4}
    theirs = randomize(AriaCrossAttention(AriaConfig(vision_config=vision))).eval()
    ours = randomize(ResamplerAdapter(16, 16, num_queries=9, num_heads=4, positions=False), seed=1)
    with torch.no_grad():
        for linear in (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.linear):
            linear.weight.copy_(torch.eye(16))
        theirs.linear.bias.zero_()
    inner, pool = theirs.multihead_attn, ours.pool
    for index, linear in enumerate((pool.attention.query, pool.attention.key, pool.attention.value)):
        weight, bias = inner.in_proj_weight.chunk(3)[index], inner.in_proj_bias.chunk(3)[index]
        linear.load_state_dict({"weight": weight, "bias": bias})
    pool.attention.output.load_state_dict(inner.out_proj.state_dict())
    pool.queries_norm.load_state_dict(theirs.layer_norm.state_dict())
    pool.memory_norm.load_state_dict(theirs.layer_norm_kv.state_dict())
    return ours, theirs


@pytest.mark.parametrize("masked", [False, True])
def test_equals_aria(masked):
    torch.manual_seed(0)
    ours, theirs = build_pair()
    tokens = torch.randn(3, 7, 16)
    mask = torch.arange(7).expand(3, 7) < torch.tensor([[7], [4], [1]]) if masked else None
    theirs_mask = None if mask is None else ~mask[:, None].repeat_interleave(4, dim=0).expand(-1, 9, -1)
    if theirs_mask is None:
        wanted = theirs(tokens, ours.pool.queries.expand(3, -1, -1))
    else:  # Aria hands one sequence-first mask on; torch takes it per head
        wanted = theirs(tokens, ours.pool.queries.expand(3, -1, -1), attn_mask=theirs_mask)
    assert wanted.std() > 0.1
    answer = ours(Features(tokens=tokens, mask=mask), Context()).tokens
    torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=0)
