"""Our average_pool = the poolings of LLaVA-NeXT-Video and of Gemma-3 before its norm."""

from types import SimpleNamespace

import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector
from transformers.models.llava_next_video.modeling_llava_next_video import LlavaNextVideoPooler

from mmunify.adapters.average_pool import AveragePoolAdapter
from mmunify.parts import Context
from mmunify.types import Features

VISION = SimpleNamespace(hidden_size=6, image_size=96, patch_size=8, layer_norm_eps=1e-6)


def pooled(kernel: int, tokens: torch.Tensor) -> torch.Tensor:
    adapter = AveragePoolAdapter(6, 6, kernel=kernel)
    adapter.load_state_dict({"project.0.weight": torch.eye(6), "project.0.bias": torch.zeros(6)})
    return adapter(Features(tokens=tokens, grid=(12, 12)), Context()).tokens


def test_equals_llava_next_video():
    config = SimpleNamespace(spatial_pool_mode="average", spatial_pool_stride=2, vision_config=VISION)
    tokens = torch.randn(3, 144, 6)
    torch.testing.assert_close(pooled(2, tokens), LlavaNextVideoPooler(config)(tokens), atol=1e-5, rtol=0)


def test_equals_gemma3():
    text = SimpleNamespace(hidden_size=6)
    theirs = Gemma3MultiModalProjector(SimpleNamespace(vision_config=VISION, text_config=text, mm_tokens_per_image=16))
    with torch.no_grad():
        theirs.mm_input_projection_weight.copy_(torch.eye(6))
    tokens = torch.randn(3, 144, 6)
    wanted = theirs(tokens)
    assert wanted.shape == (3, 16, 6)
    torch.testing.assert_close(theirs.mm_soft_emb_norm(pooled(3, tokens)), wanted, atol=1e-5, rtol=0)
