"""Audio towers of transformers: the same numbers as their feature extractors and classes, from sound to tokens."""

import json

import numpy as np
import pytest
import torch

from mmunify.data.sound import prepare_sound, read_sound
from mmunify.encoders.hf_audio import HFAudioEncoder
from mmunify.errors import CheckpointError, UserError
from mmunify.parts import Context
from mmunify.registry import ENCODERS
from mmunify.testing import check_encoder, randomize, tiny_llama_folder
from mmunify.types import Layout, Run

WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 20,
    "num_mel_bins": 20,
    "max_source_positions": 50,
    "max_target_positions": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
CLAP = {
    "model_type": "clap_audio_model",
    "spec_size": 64,
    "num_mel_bins": 16,
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "window_size": 4,
    "hidden_dropout_prob": 0.0,
}
AST = {
    "model_type": "audio-spectrogram-transformer",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_mel_bins": 32,
    "max_length": 66,
}
CONFIGS = {"whisper": WHISPER, "clap": CLAP, "ast": AST}


def example(folder):
    return {"config": WHISPER}


def folder_of(kind, folder):
    """A tiny random model with its feature extractor, as `save_pretrained` writes them."""
    return MAKERS[kind](folder)


def _whisper(folder):
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    config = WhisperConfig(**{k: v for k, v in WHISPER.items() if k != "model_type"})
    model = randomize(WhisperForConditionalGeneration(config)).eval()
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    return _saved(folder, model, extractor), model.model.encoder, extractor


def _ast(folder):
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    config = ASTConfig(**{k: v for k, v in AST.items() if k != "model_type"})
    model = randomize(ASTForAudioClassification(config)).eval()
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=66, mean=-3.0, std=4.0)
    return _saved(folder, model, extractor), model.audio_spectrogram_transformer, extractor


def _clap(folder, fused=False):
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    audio = {k: v for k, v in CLAP.items() if k != "model_type"}
    audio |= {"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {}
    model = randomize(ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8))).eval()
    truncation = "fusion" if fused else "rand_trunc"
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation=truncation, frequency_min=50)
    return _saved(folder, model, extractor), model.audio_model, extractor


MAKERS = {"whisper": _whisper, "ast": _ast, "clap": _clap, "fused_clap": lambda folder: _clap(folder, fused=True)}


def _saved(folder, model, extractor):
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def noise(seconds, rate, seed=0):
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    samples[len(samples) // 2 :] *= 1e-3
    return samples


# ------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["whisper", "ast", "clap", "fused_clap"])
def test_from_sound_to_tokens_it_is_the_published_chain(tmp_path, kind, seconds):
    folder, tower, extractor = folder_of(kind, tmp_path)
    encoder = HFAudioEncoder(str(folder)).eval()
    rate = extractor.sampling_rate
    samples = noise(seconds, rate)
    made = extractor(samples, sampling_rate=rate, return_tensors="pt")
    wanted = made["input_values" if kind == "ast" else "input_features"]
    wanted = wanted if kind == "whisper" else wanted.transpose(-1, -2)
    wanted = wanted[:, :1] if "clap" in kind else wanted[:, None]
    values = prepare_sound(read_sound((samples, rate)), encoder.preprocess)[None]
    assert values.shape[2:] == wanted.shape[1:]
    torch.testing.assert_close(values[:, 0], wanted.float(), atol=1e-4 if "clap" in kind else 1e-5, rtol=0)

    given = wanted.float()[:, None]
    features = encoder(given, Context(kind="audio"))
    longer = {"is_longer": torch.zeros(1, 1, dtype=torch.bool)} if "clap" in kind else {}
    states = tower(given[:, 0, 0] if kind == "whisper" else _as_read(kind, given), **longer)
    last = states.last_hidden_state
    tokens = last.flatten(2).transpose(1, 2) if "clap" in kind else last[:, 2:] if kind == "ast" else last
    torch.testing.assert_close(features.tokens, tokens, atol=1e-5, rtol=0)
    if kind != "whisper":
        torch.testing.assert_close(features.pooled, states.pooler_output, atol=1e-5, rtol=0)


def _as_read(kind, values):
    return values[:, 0, 0].transpose(1, 2) if kind == "ast" else values[:, 0].transpose(2, 3)


@pytest.mark.parametrize("kind", CONFIGS)
def test_contract_of_every_tower(kind):
    encoder = randomize(HFAudioEncoder(config=CONFIGS[kind]))
    features = check_encoder(encoder)
    wanted = {"whisper": (50, None), "clap": (64, (2, 32)), "ast": (2 * 6, (2, 6))}
    assert (features.tokens.shape[1], features.grid) == wanted[kind]
    assert encoder.preprocess.kind == "audio"


# ------------------------------------------------------------------------------------------- segments and folders


@pytest.mark.parametrize("kind", CONFIGS)
def test_several_segments_stand_side_by_side(kind):
    encoder = randomize(HFAudioEncoder(config=CONFIGS[kind], num_segments=3)).eval()
    values = torch.randn(2, 3, 1, *encoder.preprocess.size)
    features = encoder(values, Context())
    apart = [encoder(values[:, k : k + 1], Context()) for k in range(3)]
    torch.testing.assert_close(features.tokens, torch.cat([f.tokens for f in apart], dim=1), atol=1e-5, rtol=0)
    assert encoder.layout().num_slots == features.tokens.shape[1]
    grid = apart[0].grid
    size = apart[0].tokens.shape[1]
    assert encoder.layout() == Layout(
        runs=(Run(slots=size, grid=grid),) * 3 if grid else (Run(slots=3 * size, num_frames=3),)
    )


@pytest.mark.parametrize("kind", [*CONFIGS, "fused_clap"])
def test_saved_alone_it_loads_again(tmp_path, kind):
    folder, _, _ = folder_of(kind, tmp_path / "whole")
    encoder = HFAudioEncoder(str(folder)).eval()
    again = HFAudioEncoder(str(encoder.save_folder(tmp_path / "alone"))).eval()
    assert again.preprocess == encoder.preprocess
    values = torch.randn(2, 1, 1, *encoder.preprocess.size)
    assert torch.equal(again(values, Context()).tokens, encoder(values, Context()).tokens)
    assert encoder.save_folder(tmp_path / "half", torch.float16).is_dir()
    assert next(encoder.parameters()).dtype == torch.float32


def test_half_precision_weights_answer_in_the_type_of_the_values(tmp_path):
    folder, _, _ = folder_of("whisper", tmp_path)
    encoder = HFAudioEncoder(str(folder), dtype="bfloat16").eval()
    assert encoder.model.conv1.weight.dtype == torch.bfloat16
    assert encoder(torch.randn(1, 1, 1, 20, 100), Context()).tokens.dtype == torch.float32


def test_whispers_own_sizes_on_the_meta_device():
    with torch.device("meta"):
        encoder = ENCODERS.build(
            {"name": "hf_audio", "path": "openai/whisper-base", "config": {"model_type": "whisper"}}
        )
    assert next(encoder.parameters()).is_meta
    assert encoder.layout() == Layout.of(1500)
    assert (encoder.preprocess.size, encoder.preprocess.samples) == ((80, 3000), 480_000)
    with torch.device("meta"):
        clap, ast = (HFAudioEncoder(config={"model_type": CONFIGS[kind]["model_type"]}) for kind in ("clap", "ast"))
    assert (clap.layout().runs[0].grid, clap.out_dim, clap.preprocess.size) == ((2, 32), 768, (64, 1001))
    assert (ast.layout().runs[0].grid, ast.out_dim, ast.preprocess.size) == ((12, 101), 768, (128, 1024))
    assert (clap.preprocess.sample_rate, clap.preprocess.samples, ast.preprocess.samples) == (48_000, 480_000, 164_080)


# ------------------------------------------------------------------------------------------- errors


def test_neither_path_nor_config():
    with pytest.raises(UserError, match="needs path: .* or config: .*; got neither"):
        HFAudioEncoder()


def test_no_segment():
    with pytest.raises(UserError, match="num_segments of at least 1, got 0"):
        HFAudioEncoder(config=WHISPER, num_segments=0)


def test_another_type_of_model(tmp_path):
    folder = tiny_llama_folder(tmp_path, dim=16, depth=1, num_heads=2)
    with pytest.raises(UserError, match="models of type whisper, clap, .* is 'llama'"):
        HFAudioEncoder(str(folder))


@pytest.mark.parametrize("kind", CONFIGS)
def test_missing_tensors_are_an_error_and_no_random_weights(tmp_path, kind):
    folder, _, _ = folder_of(kind, tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    section = settings["audio_config"] if kind == "clap" else settings
    changed = {"whisper": {"encoder_layers": 3}, "ast": {"num_hidden_layers": 3}, "clap": {"depths": [2, 1]}}
    section.update(changed[kind])
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="lacks .* tensors of its audio tower"):
        HFAudioEncoder(str(folder))


def test_damaged_and_missing_files_are_named(tmp_path):
    folder, _, _ = folder_of("ast", tmp_path / "tower")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        HFAudioEncoder(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json of the audio tower .* cannot be read"):
        HFAudioEncoder(str(folder))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        HFAudioEncoder(str(tmp_path))
    with pytest.raises(CheckpointError, match="nowhere' cannot be found"):
        HFAudioEncoder(str(tmp_path / "nowhere"))
