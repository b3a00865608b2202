import torch

from mmunify.layers.two_way import TwoWayTransformer
from mmunify.testing import randomize

NAMES = {
    "among_tokens": "self_attn",
    "from_raster": "cross_attn_token_to_image",
    "from_tokens": "cross_attn_image_to_token",
    "feed_forward.expand": "mlp.lin1",
    "feed_forward.reduce": "mlp.lin2",
    "blocks": "layers",
    "norm.": "layer_norm_final_attn.",
    **{f"norms.{i}": f"layer_norm{i + 1}" for i in range(4)},
    ".query": ".q_proj",
    ".key": ".k_proj",
    ".value": ".v_proj",
    ".output": ".out_proj",
}


def renamed(name):
    if name.startswith("attention."):
        name = name.replace("attention.", "final_attn_token_to_image.", 1)
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def test_it_is_sams():
    from transformers.models.sam.configuration_sam import SamMaskDecoderConfig
    from transformers.models.sam.modeling_sam import SamTwoWayTransformer

    config = SamMaskDecoderConfig(hidden_size=16, mlp_dim=24, num_hidden_layers=2, num_attention_heads=2)
    config._attn_implementation = "eager"
    theirs = SamTwoWayTransformer(config).eval()
    ours = randomize(TwoWayTransformer(16, 2, 2, 24), std=0.3)
    with torch.no_grad():
        for norm in (module for module in theirs.modules() if isinstance(module, torch.nn.LayerNorm)):
            norm.eps = 1e-5
    theirs.load_state_dict({renamed(name): tensor for name, tensor in ours.state_dict().items()})
    tokens, raster, places = torch.randn(3, 5, 16), torch.randn(3, 12, 16), torch.randn(12, 16)
    picture = lambda x: x.transpose(-1, -2).unflatten(-1, (3, 4))  # noqa: E731
    wanted = theirs(tokens[:, None], picture(raster), picture(places)[None].expand(3, -1, -1, -1), None)
    states, seen = ours(tokens, raster, places)
    torch.testing.assert_close(states, wanted[0][:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen, wanted[1][:, 0], rtol=1e-4, atol=1e-5)
