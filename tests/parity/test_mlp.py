"""Our mlp = transformers' LLaVA projector, and its layout that of LLaVA's `mm_projector`."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from mmunify.adapters.mlp import MLPAdapter
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features


def test_equals_llavas_projector():
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=12),
        text_config=LlamaConfig(hidden_size=20, num_attention_heads=2),
        projector_hidden_act="gelu",
    )
    theirs = randomize(LlavaMultiModalProjector(config))
    ours = MLPAdapter(in_dim=12, out_dim=20, depth=2)
    mapped = {"layers.0": "linear_1", "layers.2": "linear_2"}
    weights = theirs.state_dict()
    ours.load_state_dict({f"{o}.{k}": weights[f"{t}.{k}"] for o, t in mapped.items() for k in ("weight", "bias")})
    tokens = torch.randn(2, 5, 12)
    answer = ours(Features(tokens=tokens), Context()).tokens
    assert answer.std() > 0.1
    torch.testing.assert_close(answer, theirs(tokens), atol=1e-6, rtol=0)


def test_has_the_size_of_llava_1_5():
    with torch.device("meta"):
        adapter = MLPAdapter(in_dim=1024, out_dim=4096, depth=2)
    assert sum(p.numel() for p in adapter.parameters()) == 20_979_712
    assert list(adapter.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
