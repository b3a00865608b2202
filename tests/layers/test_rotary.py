import pytest
import torch

from mmunify.errors import UserError
from mmunify.layers.rotary import RotaryBlock
from mmunify.testing import randomize

NAMES = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "output",
    "self_attn.q_norm": "query_norm",
    "self_attn.k_norm": "key_norm",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "mlp.gate_proj": "feed_forward.gate",
    "mlp.up_proj": "feed_forward.expand",
    "mlp.down_proj": "feed_forward.reduce",
}


def test_it_is_a_layer_of_qwen3_that_sees_everything():
    from transformers import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RotaryEmbedding

    config = Qwen3Config(
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        attention_bias=True,
        attn_implementation="eager",
    )
    block = randomize(RotaryBlock(16, 2, 24), std=0.4)
    theirs = Qwen3DecoderLayer(config, 0).eval()
    ours = block.state_dict()
    mapped = {}
    for name in theirs.state_dict():
        stem, kind = name.rsplit(".", 1)
        mapped[name] = ours.get(f"{NAMES[stem]}.{kind}", torch.zeros(16))  # ours has no bias behind the attention
    theirs.load_state_dict(mapped)
    states = torch.randn(2, 5, 16)
    rotary = Qwen3RotaryEmbedding(config)(states, torch.arange(5)[None])
    mask = torch.zeros(2, 1, 5, 5)
    wanted = theirs(states, attention_mask=mask, position_embeddings=rotary)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    torch.testing.assert_close(block(states), wanted, rtol=1e-4, atol=1e-5)


def test_heads_of_an_odd_width_are_refused():
    with pytest.raises(UserError, match="heads of an even width: dim=6 / num_heads=2"):
        RotaryBlock(6, 2)
