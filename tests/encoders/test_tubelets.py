"""Tubelets: one token per place of a clip."""

import pytest
import torch

from mmunify.composer import compose
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.registry import ENCODERS
from mmunify.testing import randomize
from mmunify.tokens import TokenRegistry
from mmunify.types import Layout
from tests.encoders.test_frames import CLIP, clips

FRAMES = {"name": "frames", "encoder": CLIP, "num_frames": 3}


def example(folder):
    return {"encoder": FRAMES, "dim": 8, "depth": 1, "num_heads": 2}


def example_values():
    return clips(3)


def build(**arguments):
    return randomize(ENCODERS.build({"name": "tubelets", **example(None), **arguments}), seed=1).eval()


def test_a_clip_takes_the_slots_of_a_picture():
    encoder = build()
    assert encoder.layout((640, 480)) == Layout.of(9, (3, 3)) and encoder.out_dim == 8
    assert (encoder.preprocess.kind, encoder.preprocess.num_frames) == ("video", 3)
    features = encoder(clips(3), Context(kind="video"))
    assert features.tokens.shape == (2, 9, 8) and features.grid == (3, 3)
    torch.testing.assert_close(features.pooled, features.tokens.mean(1))


def test_without_blocks_a_token_is_made_of_its_place_in_all_frames():
    encoder, values = build(depth=0), clips(3)
    frames = encoder.encoder(values, Context(kind="video")).tokens.reshape(2, 3, 9, 16)
    for place in (0, 5):
        tube = frames[:, :, place].reshape(2, 48)  # frame by frame
        wanted = encoder.norm(encoder.project(tube) + encoder.places[place])
        torch.testing.assert_close(encoder(values, Context()).tokens[:, place], wanted)


def test_queries_gather_the_places():
    encoder = build(num_queries=2)
    assert encoder.layout() == Layout.of(2)
    features = encoder(clips(3), Context())
    assert features.tokens.shape == (2, 2, 8) and features.grid is None
    places = build().places
    assert encoder.places.shape == places.shape == (9, 8)
    assert (features.tokens[:, 0] - features.tokens[:, 1]).abs().max() > 1e-3


def test_the_order_of_the_frames_counts():
    encoder, values = build(), clips(3)
    forwards, backwards = (encoder(clip, Context()).tokens for clip in (values, values.flip(1)))
    assert (forwards - backwards).abs().max() > 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 5e-3)])
def test_a_folder_holds_all_but_the_wrapped_encoder(tmp_path, dtype, tolerance):
    encoder = build(num_queries=2)
    folder = encoder.save_folder(tmp_path / "tower", dtype)
    loaded = ENCODERS.build({"name": "tubelets", "encoder": FRAMES, "path": str(folder)}).eval()
    assert loaded.external == str(folder) and loaded.sizes == encoder.sizes
    loaded.encoder.load_state_dict(encoder.encoder.state_dict())
    assert (loaded(clips(3), Context()).tokens - encoder(clips(3), Context()).tokens).abs().max() <= tolerance
    with torch.device("meta"):
        assert ENCODERS.build({"name": "tubelets", "encoder": FRAMES, "path": str(folder)}).places.is_meta


def test_folders_that_do_not_fit(tmp_path):
    folder = build().save_folder(tmp_path)
    other = {"name": "tubelets", "encoder": {**FRAMES, "num_frames": 2}, "path": str(folder)}
    with pytest.raises(UserError, match="features of width 48, the encoder's are 32 wide"):
        ENCODERS.build(other)
    text = (folder / "config.json").read_text().replace('"depth": 1', '"depth": 2')
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="doesn't fit the sizes in its config.json"):
        build(path=str(folder))


def test_only_encoders_of_frames_are_wrapped():
    flat = {"name": "hf_audio", "config": {"model_type": "whisper", "d_model": 8, "encoder_layers": 1}}
    flat["config"] |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 8, "max_source_positions": 4}
    with pytest.raises(UserError, match="tubelets needs frames of one raster; HFAudioEncoder"):
        ENCODERS.build({"name": "tubelets", "encoder": flat})


def test_a_frozen_clip_tower_feeds_a_language_model(llama_folder):
    model = compose(
        encoders={"video": {"name": "tubelets", **example(None)}},
        adapters={"video": {"name": "mlp"}},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(kinds=["video"]),
    )
    assert model.spec().media["video"].slot.layout.num_slots == 9
