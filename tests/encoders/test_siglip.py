import json

import pytest
import torch

from mmunify.encoders.siglip import SigLIPEncoder
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize, tiny_clip_folder

CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}


def tiny_siglip_folder(folder, **changes):
    """A random SigLIP tower with its image processor, as `save_pretrained` writes it."""
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    randomize(SiglipVisionModel(SiglipVisionConfig(**{**CONFIG, **changes}))).save_pretrained(folder)
    processor = SiglipImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    processor.save_pretrained(folder)
    return folder


def example(folder):
    return {"path": str(tiny_siglip_folder(folder / "siglip")), "layers": [0], "pooled": "head", "norm": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_siglip_folder(tmp_path_factory.mktemp("siglip"))


def test_numbers_of_the_folder(folder):
    encoder = SigLIPEncoder(path=str(folder))
    assert (encoder.out_dim, encoder.external) == (16, str(folder))
    assert encoder.preprocess.size == (24, 24)
    assert (encoder.preprocess.mean, encoder.preprocess.std) == ((0.4,) * 3, (0.2,) * 3)
    run = encoder.layout((640, 480)).runs[0]
    assert (run.slots, run.grid) == (9, (3, 3))


def test_inline_config_is_random_and_normalises_as_siglip():
    encoder = SigLIPEncoder(config=CONFIG)
    assert (encoder.preprocess.mean, encoder.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert check_encoder(encoder).tokens.shape == (2, 9, 16)


@pytest.mark.parametrize(("layer", "depth"), [(-1, 3), (-2, 2), (0, 0), (1, 1)])
def test_layers_above_the_chosen_one_are_let_go(folder, layer, depth):
    encoder = SigLIPEncoder(path=str(folder), layer=layer).eval()
    assert len(encoder.model.encoder.layers) == depth
    whole = SigLIPEncoder(path=str(folder), layer=-1, layers=[layer]).eval()
    values = picture_values(encoder.preprocess)
    assert torch.equal(encoder(values, Context()).tokens, whole(values, Context()).layers[layer])


def test_mean_is_of_the_tokens(folder):
    features = check_encoder(SigLIPEncoder(path=str(folder), norm=True))
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))


def test_half_precision_weights_answer_in_the_type_of_the_pixels(folder):
    features = SigLIPEncoder(path=str(folder), dtype="bfloat16")(
        picture_values(SigLIPEncoder(config=CONFIG).preprocess), Context()
    )
    assert features.tokens.dtype == features.pooled.dtype == torch.float32


def test_towers_without_a_head():
    with pytest.raises(UserError, match="has no attention head .* use pooled: mean"):
        SigLIPEncoder(config={**CONFIG, "vision_use_head": False}, pooled="head")
    check_encoder(SigLIPEncoder(config={**CONFIG, "vision_use_head": False}))


def test_flexible_siglip2_is_told_apart_from_the_fixed_one(tmp_path):
    tiny_siglip_folder(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": "siglip2_vision_model"}))
    with pytest.raises(
        UserError, match="'siglip2_vision_model', not a SigLIP vision tower .* naflex are not supported"
    ):
        SigLIPEncoder(path=str(tmp_path))


def test_another_tower_and_missing_tensors(tmp_path):
    with pytest.raises(UserError, match="holds a model of type 'clip_vision_model', not a SigLIP"):
        SigLIPEncoder(path=str(tiny_clip_folder(tmp_path / "clip")))
    folder = tiny_siglip_folder(tmp_path / "siglip")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 4}))
    with pytest.raises(CheckpointError, match="lacks 16 tensors of its vision tower"):
        SigLIPEncoder(path=str(folder))


def test_on_the_meta_device_an_inline_config_needs_no_file():
    with torch.device("meta"):
        encoder = SigLIPEncoder(path="google/siglip2-so400m-patch14-384", config=CONFIG)
    assert next(encoder.parameters()).is_meta
    assert encoder.layout().num_slots == 9


def test_layer_out_of_range():
    with pytest.raises(UserError, match=r"siglip has no layer 4: its 3 layers make hidden states 0\.\.3"):
        SigLIPEncoder(config=CONFIG, layer=4)
