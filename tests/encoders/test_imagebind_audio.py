"""ImageBind's audio trunk: its published sizes, its vectors, its weights' names."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmunify.data.sound import prepare_sound, read_sound
from mmunify.encoders.imagebind_audio import ImageBindAudioEncoder
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.registry import ADAPTERS
from mmunify.testing import check_encoder, randomize
from mmunify.types import Run

TINY = {"dim": 16, "depth": 2, "num_heads": 2, "out_dim": 12, "size": [32, 46], "num_segments": 2}


def example(folder):
    return TINY


def example_values():
    return banks(2)


def banks(num_items, num_segments=2, size=(32, 46)):
    return torch.randn(num_items, num_segments, 1, *size, generator=torch.Generator().manual_seed(0))


def build(**arguments):
    return randomize(ImageBindAudioEncoder(**{**TINY, **arguments})).eval()


def test_the_published_sizes():
    with torch.device("meta"):
        encoder = ImageBindAudioEncoder()
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in encoder.named_children()}
    assert encoder.num_tokens == 229 and encoder.positions.shape == (1, 229, 768)
    assert counts["patches"] == 16 * 16 * 768 and counts["project"] == 768 * 1024
    block = 3 * (768 * 768 + 768) + 768 * 768 + 768 + 2 * 768 + 2 * (2 * 768) + 2 * 4 * 768 * 768 + 5 * 768
    assert counts["blocks"] == 12 * block
    assert sum(p.numel() for p in encoder.parameters()) == 86_235_648
    assert (encoder.out_dim, encoder.layout((99, 1)).runs) == (1024, (Run(slots=3, num_frames=3),))
    assert [round(b.drop_path, 4) for b in encoder.blocks][::11] == [0.0, 0.1]
    numbers = encoder.preprocess
    assert (numbers.size, numbers.mean, numbers.std) == ((128, 204), (-4.268,), (9.138,))
    assert (numbers.sample_rate, numbers.samples, numbers.num_segments) == (16_000, 32_000, 3)


def test_unifiedmllms_branch_has_its_eight_tokens():
    with torch.device("meta"):
        encoder = ImageBindAudioEncoder()
        node = {"name": "qformer", "num_queries": 8, "depth": 2, "dim": 768, "cross_attention_frequency": 1}
        adapter = ADAPTERS.build(node, in_dim=encoder.out_dim, out_dim=4096)
        features = encoder(torch.zeros(2, 3, 1, 128, 204), Context(kind="audio"))
        embeds = adapter(features, Context(kind="audio"))
    assert (features.tokens.shape, embeds.tokens.shape) == ((2, 3, 1024), (2, 8, 4096))
    project = sum(p.numel() for p in adapter.project.parameters())
    assert sum(p.numel() for p in adapter.parameters()) - project == 19_697_664


def test_vectors_have_norm_20_and_pooled_is_their_mean():
    features = check_encoder(build(), banks(2))
    torch.testing.assert_close(features.tokens.norm(dim=-1), torch.full((2, 2), 20.0))
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))
    assert features.grid is None


def test_segments_do_not_hear_each_other():
    encoder, values = build(), banks(2, 5)
    together = encoder(values, Context()).tokens
    apart = torch.cat([encoder(values[:, k : k + 1], Context()).tokens for k in range(5)], dim=1)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_tokens_are_patches_of_16_by_16_every_10():
    encoder, values = build(), banks(1, 1)
    assert encoder.num_tokens == 1 + 2 * 4
    shifted = values.clone()
    shifted[..., 0:10, 40:46] += 1.0  # within the first row's last patch alone
    moved = (encoder._tokens(shifted.flatten(0, 1)) - encoder._tokens(values.flatten(0, 1))).abs().sum(dim=-1)[0]
    assert moved.nonzero().flatten().tolist() == [4]


def test_sounds_become_its_numbers():
    encoder = ImageBindAudioEncoder(**{**TINY, "size": [128, 204]}).eval()
    sound = read_sound((np.random.default_rng(0).normal(0, 0.1, 5000), 8000))
    values = prepare_sound(sound, encoder.preprocess)[None]
    assert encoder(values, Context()).tokens.shape == (1, 2, 12)


def test_published_names_round_trip_and_may_stand_among_others(tmp_path):
    encoder = build()
    folder = encoder.save_folder(tmp_path / "tower")
    tensors = load_file(folder / "model.safetensors")
    assert tensors["modality_preprocessors.audio.rgbt_stem.proj.weight"].shape == (16, 1, 16, 16)
    save_file({**tensors, "modality_heads.vision.0.weight": torch.zeros(3)}, tmp_path / "all.safetensors")
    for path in (folder, folder / "model.safetensors", tmp_path / "all.safetensors"):
        loaded = ImageBindAudioEncoder(str(path), **TINY).eval()
        assert torch.equal(loaded(banks(2), Context()).tokens, encoder(banks(2), Context()).tokens)
        assert loaded.external == str(path)
    assert encoder.save_folder(tmp_path / "half", torch.float16).is_dir()


def test_weights_that_do_not_fit_are_named(tmp_path):
    folder = build().save_folder(tmp_path / "tower")
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds no ImageBind audio trunk of these sizes"):
        ImageBindAudioEncoder(str(folder), **{**TINY, "depth": 3})
    with pytest.raises(CheckpointError, match="never from pickles"):
        ImageBindAudioEncoder(str(tmp_path), **TINY)
    with pytest.raises(CheckpointError, match="nowhere' cannot be found"):
        ImageBindAudioEncoder(str(tmp_path / "nowhere"), **TINY)


def test_at_least_one_segment():
    with pytest.raises(UserError, match="num_segments of at least 1, got 0"):
        ImageBindAudioEncoder(num_segments=0)
