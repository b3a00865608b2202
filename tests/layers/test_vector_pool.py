import torch
from torch.nn import functional as F

from mmunify.layers.vector_pool import VectorPool


def test_it_is_clips_attention_pooling():
    torch.manual_seed(0)
    pool, states = VectorPool(5, 8, 6, 2), torch.randn(3, 5, 8)
    tokens = states.transpose(0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.places[:, None]
    wanted, _ = F.multi_head_attention_forward(
        query=tokens[:1], key=tokens, value=tokens, embed_dim_to_check=8, num_heads=2,
        in_proj_weight=None, in_proj_bias=torch.cat([pool.query.bias, pool.key.bias, pool.value.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=pool.output.weight, out_proj_bias=pool.output.bias, use_separate_proj_weight=True,
        q_proj_weight=pool.query.weight, k_proj_weight=pool.key.weight, v_proj_weight=pool.value.weight,
        training=False, need_weights=False,
    )  # fmt: skip
    torch.testing.assert_close(pool(states), wanted[0])
