import numpy as np
import pytest
import torch
from transformers import CLIPVisionModel

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.data.sound import prepare_sound, read_sound
from mmunify.encoders.universal import UniversalEncoder
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize, tiny_clip_folder
from mmunify.tokens import TokenRegistry
from mmunify.types import Media, Sample, Text, Turn
from tests.conftest import TINY_CLIP

SMALL = {
    "image": {},
    "video": None,
    "audio": {"bins": 8, "frames": 20, "kernel": 4, "stride": 4},
    "imu": {"channels": 3, "length": 12, "kernel": 4},
    "fmri": {"voxels": 11, "num_tokens": 2},
    "point": {"num_points": 16, "num_groups": 4, "group_size": 3},
}
VALUES = {"audio": (2, 1, 8, 20), "imu": (2, 3, 12), "fmri": (2, 11), "point": (2, 16, 6)}


def example(folder):
    return {"path": str(tiny_clip_folder(folder / "clip"))}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return randomize(UniversalEncoder(config=TINY_CLIP, modalities=SMALL)).eval()


def test_pictures_are_all_tokens_of_the_tower_behind_its_last_norm(tmp_path):
    folder = tiny_clip_folder(tmp_path)
    encoder = UniversalEncoder(path=str(folder)).eval()
    theirs = CLIPVisionModel.from_pretrained(folder).eval()
    values = picture_values(encoder.preprocess)
    wanted = theirs.post_layernorm(theirs(values[:, 0], output_hidden_states=True).hidden_states[-1])
    features = check_encoder(encoder, values)
    assert features.tokens.shape == (2, 17, 32)
    torch.testing.assert_close(features.tokens, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled, features.tokens[:, 0])


def test_clips_are_averaged_token_by_token(encoder):
    clips = torch.randn(2, 3, 3, 32, 32)
    frames = [encoder(clips[:, [i]], Context(kind="image")).tokens for i in range(3)]
    features = encoder(clips, Context(kind="video"))
    torch.testing.assert_close(features.tokens, torch.stack(frames).mean(dim=0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "count"), [("audio", 2 * 5), ("imu", 9), ("fmri", 2), ("point", 4)])
def test_other_kinds_share_class_token_and_blocks(encoder, kind, count):
    values = torch.randn(VALUES[kind])
    features = encoder(values, Context(kind=kind))
    assert features.tokens.shape == (2, 1 + count, 32)
    torch.testing.assert_close(encoder(values[1:], Context(kind=kind)).tokens, features.tokens[1:], atol=1e-5, rtol=0)
    alone = UniversalEncoder(config=TINY_CLIP, modalities={kind: SMALL[kind]}).eval()
    alone.load_state_dict(encoder.state_dict(), strict=False)
    assert alone.layout().num_slots == 1 + count
    assert alone.preprocess.kind == kind
    torch.testing.assert_close(alone(values, Context(kind=kind)).tokens, features.tokens, atol=1e-5, rtol=0)
    assert {name.split(".")[0] for name, _ in alone.named_parameters()} == {"model", "tokenizers"}
    features.tokens.sum().backward()
    assert all(p.grad is not None for p in encoder.tokenizers[kind].parameters())


def test_half_precision_towers(encoder, tmp_path):
    half = UniversalEncoder(path=str(tiny_clip_folder(tmp_path)), modalities={"fmri": SMALL["fmri"]}, dtype="bfloat16")
    assert half(torch.randn(2, 11), Context(kind="fmri")).tokens.dtype == torch.float32


def test_tokenizers_are_no_part_of_the_path():
    from fnmatch import fnmatchcase

    assert any(fnmatchcase("tokenizers.audio.positions", glob) for glob in UniversalEncoder.added)


def test_kinds_that_it_does_not_read(encoder):
    with pytest.raises(DataError, match="reads .*'point'.*, and got a medium of 'smell'"):
        encoder(torch.zeros(1, 3), Context(kind="smell"))
    with pytest.raises(UserError, match="at least one modality"):
        UniversalEncoder(config=TINY_CLIP, modalities={})


def test_kinds_of_a_node_that_it_was_not_built_for(encoder):
    assert encoder.layout_of("point").num_slots == 5
    for ask in (encoder.layout_of, encoder.preprocess_of):
        with pytest.raises(UserError, match="a node of kind 'smell' is read by a universal encoder of .*'point'"):
            ask("smell")


def test_how_its_kinds_become_values(encoder):
    """Sounds as AST's log filter banks; clips and pairs of pictures as frames; the rest as it is."""
    sound = encoder.preprocess_of("audio")
    assert (sound.size, sound.sample_rate, sound.mean, sound.std) == ((8, 20), 16_000, (-4.2677393,), (9.1379948,))
    assert prepare_sound(read_sound((np.zeros(2000), 16_000)), sound).shape == (1, 1, 8, 20)
    assert encoder.preprocess_of("video").num_frames == 5
    pairs = UniversalEncoder(config=TINY_CLIP, modalities={"rgbd": {}, "video": {"num_frames": 3}})
    assert pairs.preprocess_of("rgbd").indices(2) == [0, 1]
    assert pairs.preprocess_of("video").num_frames == 3
    assert encoder.preprocess_of("point").shape == (16, 6)
    assert encoder.preprocess_of("image").size == (32, 32)


def test_one_encoder_for_all_kinds_in_a_recipe(llama_folder):
    """OneLLM: every kind is a node that shares the module; one sample holds several of them."""
    rng = np.random.default_rng(0)
    media = {
        "image": rng.integers(0, 255, (20, 30, 3), dtype=np.uint8),
        "video": rng.integers(0, 255, (4, 20, 30, 3), dtype=np.uint8),
        "audio": (rng.normal(0, 0.1, 4000).astype(np.float32), 16_000),
        "imu": rng.normal(size=(3, 12)),
        "fmri": rng.normal(size=11),
        "point": rng.normal(size=(16, 6)),
    }
    first = {"name": "universal", "config": TINY_CLIP, "modalities": SMALL}
    shared = {"name": "universal_projection", "kinds": list(media), "num_queries": 3, "num_experts": 2, "depth": 1}
    others = list(media)[1:]
    model = compose(
        encoders={"image": first, **{kind: {"share": "image", "kind": kind} for kind in others}},
        adapters={"image": shared, **{kind: {**shared, "kind": kind} for kind in others}},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(kinds=tuple(media)),
    )
    assert model.encoders["point"] is model.encoders["image"]
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    asked = [Media(kind=kind, source=source) for kind, source in media.items()]
    answer = Turn(role="assistant", parts=(Text(text="ok"),))
    batch = processor([Sample(turns=(Turn(role="user", parts=tuple(asked)), answer), id="all")])
    assert {kind: items.values.shape[1:] for kind, items in batch.media.items()} == {
        "image": (1, 3, 32, 32),
        "video": (5, 3, 32, 32),
        "audio": (1, 1, 8, 20),
        "imu": (3, 12),
        "fmri": (11,),
        "point": (16, 6),
    }
    assert {int(items.slots.sum()) for items in batch.media.values()} == {3}
    assert model(batch).total.isfinite()
