"""Our siglip encoder = transformers' SiglipVisionModel; with mlp it is what Llava makes of a picture."""

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig, SiglipVisionModel

from mmunify.adapters.mlp import MLPAdapter
from mmunify.encoders.siglip import SigLIPEncoder
from mmunify.parts import Context
from mmunify.testing import picture_values, randomize

CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    randomize(SiglipVisionModel(SiglipVisionConfig(**CONFIG))).save_pretrained(folder)
    return folder


def test_hidden_states_norm_and_head(folder):
    ours = SigLIPEncoder(path=str(folder), layer=-1, layers=[0, -2], norm=True, pooled="head").eval()
    theirs = SiglipVisionModel.from_pretrained(folder).eval()
    values = picture_values(ours.preprocess)
    features, wanted = ours(values, Context()), theirs(values[:, 0], output_hidden_states=True)
    assert features.tokens.std() > 0.1
    torch.testing.assert_close(features.tokens, wanted.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled, wanted.pooler_output, atol=1e-5, rtol=0)
    for index in (0, -2):
        torch.testing.assert_close(features.layers[index], wanted.hidden_states[index], atol=1e-5, rtol=0)


def test_llava_with_a_siglip_tower(folder):
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**CONFIG),
        text_config={"model_type": "llama", "vocab_size": 40, **text},
        image_token_index=39,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )
    theirs = randomize(LlavaForConditionalGeneration(config)).eval()
    tower, projector = theirs.model.vision_tower, theirs.model.multi_modal_projector
    ours = SigLIPEncoder(config=CONFIG, layer=-2).eval()
    ours.model.load_state_dict(tower.state_dict(), strict=False)
    adapter = MLPAdapter(in_dim=16, out_dim=32)
    adapter.layers[0].load_state_dict(projector.linear_1.state_dict())
    adapter.layers[2].load_state_dict(projector.linear_2.state_dict())
    values = picture_values(ours.preprocess)
    embeds = adapter(ours(values, Context()), Context()).tokens
    wanted = theirs.get_image_features(pixel_values=values[:, 0]).pooler_output
    torch.testing.assert_close(embeds, torch.stack(list(wanted)), atol=1e-5, rtol=0)
