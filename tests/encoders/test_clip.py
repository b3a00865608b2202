import json

import pytest
import torch

from mmunify.encoders.clip import MEAN, STD, CLIPEncoder
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize, tiny_clip_folder, tiny_llama_folder

CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}


def example(folder):
    return {"path": str(tiny_clip_folder(folder / "clip")), "layers": [0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip_folder(tmp_path_factory.mktemp("clip"))


def test_numbers_of_the_folder(folder):
    encoder = CLIPEncoder(path=str(folder))
    assert encoder.out_dim == 32
    assert encoder.external == str(folder)
    assert encoder.preprocess.size == (32, 32)
    assert encoder.preprocess.mean == (0.4, 0.5, 0.6)
    assert encoder.preprocess.std == (0.2, 0.25, 0.3)
    assert encoder.preprocess.fit == "pad"
    run = encoder.layout((640, 480)).runs[0]
    assert (run.slots, run.grid) == (16, (4, 4))


def test_inline_config_is_random_and_normalises_as_clip():
    encoder = CLIPEncoder(config=CONFIG)
    assert (encoder.preprocess.mean, encoder.preprocess.std) == (MEAN, STD)
    assert encoder.external is None
    assert check_encoder(encoder).tokens.shape == (2, 9, 16)


def test_class_token_on_request(folder):
    patches, everything = CLIPEncoder(path=str(folder)), CLIPEncoder(path=str(folder), drop_class=False)
    values = picture_values(patches.preprocess)
    kept, full = (check_encoder(encoder, values) for encoder in (patches, everything))
    assert torch.equal(full.tokens[:, 1:], kept.tokens)
    assert torch.equal(full.tokens[:, 0], kept.pooled)
    assert (kept.grid, full.grid) == ((4, 4), None)


@pytest.mark.parametrize(("layer", "depth"), [(-1, 3), (-2, 2), (0, 0), (1, 1), (3, 3)])
def test_layers_above_the_chosen_one_are_let_go(folder, layer, depth):
    encoder = CLIPEncoder(path=str(folder), layer=layer)
    assert len(encoder.model.encoder.layers) == depth
    whole = CLIPEncoder(path=str(folder), layer=-1, layers=[layer])
    values = picture_values(encoder.preprocess)
    assert torch.equal(encoder(values, Context()).tokens, whole(values, Context()).layers[layer])


def test_further_layers_keep_what_they_need(folder):
    encoder = CLIPEncoder(path=str(folder), layer=1, layers=[-1, 0])
    assert len(encoder.model.encoder.layers) == 3
    features = check_encoder(encoder)
    assert set(features.layers) == {-1, 0}
    assert features.layers[-1].shape == (2, 16, 32)


def test_pooler_runs_to_the_end(folder):
    encoder = CLIPEncoder(path=str(folder), layer=-2, pooled="pooler")
    features = check_encoder(encoder)
    whole = CLIPEncoder(path=str(folder), layer=-1)
    assert features.pooled.shape == (2, 32)
    assert not torch.equal(features.pooled, whole(picture_values(encoder.preprocess), Context()).pooled)


def test_a_whole_clip_is_as_good_as_its_tower(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(text_config={**text, "vocab_size": 50}, vision_config=CONFIG, projection_dim=8))
    clip.save_pretrained(tmp_path)
    encoder = CLIPEncoder(path=str(tmp_path), layer=-1).eval()
    values = picture_values(encoder.preprocess)
    wanted = clip.vision_model(values[:, 0]).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(values, Context()).tokens, wanted, atol=1e-5, rtol=0)


def test_half_precision_weights_answer_in_the_type_of_the_pixels(folder):
    encoder = CLIPEncoder(path=str(folder), dtype="bfloat16")
    assert encoder.model.pre_layrnorm.weight.dtype == torch.bfloat16
    features = encoder(picture_values(encoder.preprocess), Context())
    assert features.tokens.dtype == features.pooled.dtype == torch.float32


def test_on_the_meta_device_a_folder_gives_shapes_alone(tmp_path):
    folder = tiny_clip_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    with torch.device("meta"):
        encoder = CLIPEncoder(path=str(folder))
    assert (encoder.out_dim, encoder.layout().num_slots) == (32, 16)
    assert encoder.preprocess.mean == (0.4, 0.5, 0.6)
    assert next(encoder.parameters()).is_meta


def test_on_the_meta_device_an_inline_config_needs_no_file():
    with torch.device("meta"):
        encoder = CLIPEncoder(path="openai/clip-vit-large-patch14-336", config={**CONFIG, "image_size": 32})
    assert encoder.layout().num_slots == 16
    assert next(encoder.parameters()).is_meta


def test_norm_is_clips_final_one_over_all_tokens(folder):
    plain, normed = CLIPEncoder(path=str(folder), layer=-1), CLIPEncoder(path=str(folder), layer=-1, norm=True)
    values = picture_values(plain.preprocess)
    wanted = normed.model.post_layernorm(plain(values, Context()).tokens)
    torch.testing.assert_close(normed(values, Context()).tokens, wanted)


def test_the_tower_of_blip2(tmp_path):
    from transformers import Blip2VisionConfig, Blip2VisionModel

    sizes = {**CONFIG, "model_type": "blip_2_vision_model"}
    encoder = CLIPEncoder(config=sizes, layer=-1, norm=True, drop_class=False).eval()
    theirs = Blip2VisionModel(Blip2VisionConfig(**CONFIG))
    theirs.load_state_dict(randomize(encoder.model).state_dict())
    values = picture_values(encoder.preprocess)
    features = check_encoder(encoder, values)
    wanted = theirs.eval()(values[:, 0]).last_hidden_state
    assert wanted.std() > 0.1
    torch.testing.assert_close(features.tokens, wanted, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("layer", [4, -5])
def test_layer_out_of_range_says_how_many_there_are(layer):
    with pytest.raises(UserError, match=rf"no layer {layer}: its 3 layers make hidden states 0\.\.3, or -4\.\.-1"):
        CLIPEncoder(config=CONFIG, layer=layer)


def test_neither_path_nor_config():
    with pytest.raises(UserError, match="needs path: .* or config: .*; got neither"):
        CLIPEncoder()


def test_another_kind_of_model(tmp_path):
    folder = tiny_llama_folder(tmp_path, dim=16, depth=1, num_heads=2)
    with pytest.raises(UserError, match="holds a model of type 'llama', not a CLIP vision tower"):
        CLIPEncoder(path=str(folder))


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="the clip tower .*nowhere.* cannot be found"):
        CLIPEncoder(path=str(tmp_path / "nowhere"))


def test_truncated_weights_name_the_file(tmp_path):
    folder = tiny_clip_folder(tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        CLIPEncoder(path=str(folder))


def test_pickles_are_refused(tmp_path):
    folder = tiny_clip_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="never from pickles"):
        CLIPEncoder(path=str(folder))


def test_missing_tensors_are_an_error_and_no_random_weights(tmp_path):
    folder = tiny_clip_folder(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 5}))
    with pytest.raises(CheckpointError, match="lacks 32 tensors of its vision tower"):
        CLIPEncoder(path=str(folder))
