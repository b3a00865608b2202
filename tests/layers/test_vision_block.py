"""Our block = torch's pre-norm encoder layer."""

import torch
from torch import nn

from mmunify.layers.vision_block import VisionBlock
from mmunify.testing import randomize


def test_torchs_encoder_layer():
    ours = randomize(VisionBlock(16, num_heads=4, hidden_dim=24)).double()
    theirs = nn.TransformerEncoderLayer(
        16, 4, 24, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    projections = (ours.attention.query, ours.attention.key, ours.attention.value)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([p.weight for p in projections]),
            "self_attn.in_proj_bias": torch.cat([p.bias for p in projections]),
            **{f"self_attn.out_proj.{k}": v for k, v in ours.attention.output.state_dict().items()},
            **{f"linear1.{k}": v for k, v in ours.feed_forward.expand.state_dict().items()},
            **{f"linear2.{k}": v for k, v in ours.feed_forward.reduce.state_dict().items()},
            **{f"norm1.{k}": v for k, v in ours.attention_norm.state_dict().items()},
            **{f"norm2.{k}": v for k, v in ours.feed_forward_norm.state_dict().items()},
        }
    )
    tokens = torch.randn(2, 5, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens))
