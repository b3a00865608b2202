import pytest
import torch
from transformers import CLIPVisionModel

from mmunify.encoders.universal import UniversalEncoder
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_encoder, picture_values, randomize, tiny_clip_folder
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
