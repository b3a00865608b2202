import json

import pytest
import timm
import torch

from mmunify.encoders.timm import TimmEncoder, save_timm
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize, tiny_timm_folder

XCIT = {"embed_dim": 32, "depth": 3, "num_heads": 4, "img_size": 32}
VIT = {"embed_dim": 24, "depth": 3, "num_heads": 3, "img_size": 32}
SMALL_NET = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 24)}


def example(folder):
    return {"path": str(tiny_timm_folder(folder / "tower"))}


def test_the_digit_world_tower():
    encoder = TimmEncoder(
        model="xcit_nano_12_p8_224", model_args={"embed_dim": 128, "depth": 4, "num_heads": 4, "img_size": 64}
    )
    features = check_encoder(encoder)
    assert features.tokens.shape == (2, 64, 128)
    assert features.grid == (8, 8)
    assert encoder.preprocess.size == (64, 64)
    assert encoder.layout().runs[0].grid == (8, 8)


def test_prefix_tokens_are_dropped_and_pooled_is_what_the_head_reads():
    encoder = TimmEncoder(model="vit_tiny_patch16_224", model_args={**VIT, "reg_tokens": 2}).eval()
    randomize(encoder)
    values = picture_values(encoder.preprocess)
    everything = encoder.model.forward_features(values[:, 0])
    features = check_encoder(encoder, values)
    assert everything.shape[1] == 3 + 4
    assert torch.equal(features.tokens, everything[:, 3:])
    assert torch.equal(features.pooled, encoder.model.forward_head(everything, pre_logits=True))


def test_convolutional_maps_become_rasters():
    encoder = TimmEncoder(model="convnext_atto", model_args=SMALL_NET, size=96).eval()
    values = picture_values(encoder.preprocess)
    raster = encoder.model.forward_features(values[:, 0])
    features = check_encoder(encoder, values)
    assert encoder.out_dim == 24
    assert features.grid == (3, 3)
    assert torch.equal(features.tokens[:, 4], raster[:, :, 1, 1])
    assert torch.equal(features.tokens[:, 5], raster[:, :, 1, 2])


def test_channels_last_maps_become_rasters():
    arguments = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4, "img_size": 32}
    encoder = TimmEncoder(model="swin_tiny_patch4_window7_224", model_args=arguments).eval()
    values = picture_values(encoder.preprocess)
    raster = encoder.model.forward_features(values[:, 0])
    features = check_encoder(encoder, values)
    assert raster.shape == (2, 4, 4, 16)
    assert torch.equal(features.tokens[:, 6], raster[:, 1, 2])


@pytest.mark.parametrize(("model", "arguments"), [("xcit_nano_12_p8_224", XCIT), ("vit_tiny_patch16_224", VIT)])
def test_layer_is_the_blocks_state_under_the_final_norm(model, arguments):
    encoder = randomize(TimmEncoder(model=model, model_args=arguments, layer=-2, layers=[0])).eval()
    states = {}
    for index, block in enumerate(encoder.model.blocks):
        block.register_forward_hook(lambda _, __, out, index=index: states.update({index: out}))
    features = check_encoder(encoder)
    assert len(encoder.model.blocks) == 2
    encoder(picture_values(encoder.preprocess), Context())
    prefix = states[1].shape[1] - features.tokens.shape[1]
    torch.testing.assert_close(features.tokens, encoder.model.norm(states[1])[:, prefix:])
    torch.testing.assert_close(features.layers[0], encoder.model.norm(states[0])[:, prefix:])


def test_layer_without_the_norm():
    torch.manual_seed(0)
    normed = TimmEncoder(model="vit_tiny_patch16_224", model_args=VIT, layer=-1).eval()
    raw = TimmEncoder(model="vit_tiny_patch16_224", model_args=VIT, layer=-1, norm=False).eval()
    raw.model.load_state_dict(normed.model.state_dict(), strict=False)
    values = picture_values(raw.preprocess)
    wanted = normed.model.norm(raw(values, Context()).tokens)
    torch.testing.assert_close(normed(values, Context()).tokens, wanted, atol=1e-5, rtol=0)
    check_encoder(raw)


def test_layers_of_a_convolutional_tower_are_its_stages():
    encoder = TimmEncoder(model="convnext_atto", model_args=SMALL_NET, size=64, layer=1)
    assert encoder.out_dim == 12
    assert check_encoder(encoder).grid == (8, 8)


def test_size_reaches_towers_with_a_table_of_positions():
    encoder = TimmEncoder(model="vit_tiny_patch16_224", model_args={k: VIT[k] for k in VIT if k != "img_size"}, size=48)
    assert encoder.model.pos_embed.shape[1] == 1 + 9
    assert check_encoder(encoder).grid == (3, 3)


DINO = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 28}


@pytest.mark.parametrize(
    ("model", "arguments", "size", "shape"),
    [
        ("vit_small_patch14_dinov2", DINO, None, (2, 4, 24)),
        ("vit_small_patch14_reg4_dinov2", DINO, None, (2, 4, 24)),
        ("eva02_tiny_patch14_224", DINO, None, (2, 4, 24)),
        ("eva_giant_patch14_224", {**DINO, "mlp_ratio": 2.0}, None, (2, 4, 24)),
        ("vit_base_patch16_siglip_224", VIT, None, (2, 4, 24)),
        ("vit_base_patch16_clip_224", VIT, None, (2, 4, 24)),
        ("convnextv2_atto", SMALL_NET, 64, (2, 4, 24)),
        ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 16)}, 64, (2, 4, 16)),
    ],
)
def test_families_by_name(model, arguments, size, shape):
    torch.manual_seed(0)
    encoder = TimmEncoder(model=model, model_args=arguments, size=size).eval()
    values = picture_values(encoder.preprocess)
    features = encoder(values, Context())
    assert features.tokens.shape == shape
    assert features.grid == encoder.layout().runs[0].grid == (2, 2)
    torch.testing.assert_close(encoder(values[1:], Context()).tokens, features.tokens[1:], atol=1e-5, rtol=0)
    assert features.tokens.std() > 0


# ------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 0.05)])
def test_folder_round_trip(tmp_path, dtype, tolerance):
    encoder = randomize(TimmEncoder(model="xcit_nano_12_p8_224", model_args=XCIT)).eval()
    folder = save_timm(encoder.model, tmp_path / "tower", dtype=dtype)
    loaded = TimmEncoder(path=str(folder)).eval()
    values = picture_values(encoder.preprocess)
    assert loaded.external == str(folder)
    assert loaded.preprocess == encoder.preprocess
    assert next(loaded.parameters()).dtype == torch.float32
    difference = loaded(values, Context()).tokens - encoder(values, Context()).tokens
    assert difference.abs().max() <= tolerance


def test_folder_is_timms_own_format(tmp_path):
    tower = randomize(timm.create_model("xcit_nano_12_p8_224", num_classes=0, **XCIT)).eval()
    loaded = timm.create_model(f"local-dir:{save_timm(tower, tmp_path)}", pretrained=True).eval()
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded.forward_features(pixels), tower.forward_features(pixels))


def test_batch_statistics_travel_with_the_folder(tmp_path):
    tower = timm.create_model("xcit_nano_12_p8_224", num_classes=0, **XCIT).train()
    tower(torch.randn(4, 3, 32, 32) + 1)
    loaded = TimmEncoder(path=str(save_timm(tower, tmp_path)))
    name = next(n for n, _ in tower.named_buffers() if n.endswith("running_mean"))
    assert torch.equal(loaded.model.get_buffer(name), tower.get_buffer(name))
    assert tower.get_buffer(name).abs().sum() > 0


def test_arguments_over_a_folder(tmp_path):
    folder = tiny_timm_folder(tmp_path, "vit_tiny_patch16_224", size=32)
    assert TimmEncoder(path=str(folder), size=48).layout().num_slots == 9


def test_on_the_meta_device_a_folder_gives_shapes_alone(tmp_path):
    folder = tiny_timm_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    with torch.device("meta"):
        encoder = TimmEncoder(path=str(folder))
        named = TimmEncoder(path="some/tower", model="vit_large_patch14_dinov2")
    assert next(encoder.parameters()).is_meta
    assert encoder.layout().num_slots == 16
    assert (named.out_dim, named.layout().num_slots) == (1024, 37 * 37)


# ------------------------------------------------------------------------------------------- errors


def test_neither_path_nor_model():
    with pytest.raises(UserError, match="needs path: .* or model: .*; got neither"):
        TimmEncoder()


def test_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no model named 'convnext_ato'; did you mean 'convnext_atto'"):
        TimmEncoder(model="convnext_ato")


def test_unknown_argument():
    with pytest.raises(UserError, match="refuses model_args .*'dephts'"):
        TimmEncoder(model="convnext_atto", model_args={"dephts": (1, 1, 1, 1)})


def test_layer_out_of_range_says_how_many_there_are():
    with pytest.raises(UserError, match=r"no layer 3: it has 3, counted 0\.\.2 or -3\.\.-1 from the end"):
        TimmEncoder(model="xcit_nano_12_p8_224", model_args=XCIT, layer=3)


def test_pictures_of_another_size_are_told_apart_from_the_layout():
    encoder = TimmEncoder(model="xcit_nano_12_p8_224", model_args=XCIT)
    with pytest.raises(UserError, match=r"made 64 tokens where its layout says 4x4: feed it pictures of \(32, 32\)"):
        encoder(torch.zeros(1, 1, 3, 64, 64), Context())


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id in reach"):
        TimmEncoder(path=str(tmp_path / "nowhere"))


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        TimmEncoder(path=str(tmp_path))


def test_truncated_weights_name_the_file(tmp_path):
    file = tiny_timm_folder(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        TimmEncoder(path=str(tmp_path))


def test_weights_of_another_architecture(tmp_path):
    folder = tiny_timm_folder(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    settings["model_args"]["depth"] = 5
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        TimmEncoder(path=str(folder))


def test_save_timm_takes_timm_models_alone(tmp_path):
    with pytest.raises(UserError, match="Linear is none"):
        save_timm(torch.nn.Linear(2, 2), tmp_path)
