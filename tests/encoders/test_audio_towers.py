"""Which tower a folder holds, and how sounds become its numbers (the towers themselves: test_hf_audio.py)."""

from types import SimpleNamespace

import pytest

from mmunify.encoders._audio_towers import AST, CLAP, KINDS, WHISPER, build_audio_tower, hub_file
from mmunify.errors import CheckpointError, UserError


def test_every_kind_has_classes_of_transformers():
    import transformers

    for kind in KINDS.values():
        assert hasattr(transformers, kind.config) and hasattr(transformers, kind.extractor)
        assert not kind.whole or hasattr(transformers, kind.whole)


def test_defaults_are_those_of_the_published_feature_extractors():
    import transformers

    whisper, clap, ast = (getattr(transformers, kind.extractor)() for kind in (WHISPER, CLAP, AST))
    made = WHISPER.preprocess(SimpleNamespace(num_mel_bins=80, max_source_positions=1500), {})
    assert (made["samples"], made["window"], made["hop"]) == (whisper.n_samples, whisper.n_fft, whisper.hop_length)
    made = CLAP.preprocess(SimpleNamespace(num_mel_bins=64, spec_size=256, enable_fusion=True), {})
    assert (made["samples"], made["window"], made["bank"]) == (clap.nb_max_samples, clap.fft_window_size, "clap_fusion")
    assert made["band"] == (clap.frequency_min, clap.frequency_max)
    made = AST.preprocess(SimpleNamespace(num_mel_bins=128, max_length=1024), {})
    assert (made["mean"], made["std"]) == ((ast.mean,), (2 * ast.std,))


def test_settings_of_a_folder_win():
    found = {"sampling_rate": 8000, "do_normalize": False}
    made = AST.preprocess(SimpleNamespace(num_mel_bins=64, max_length=100), found)
    assert (made["mean"], made["std"], made["window"], made["hop"]) == ((0.0,), (1.0,), 200, 80)
    assert made["samples"] == 99 * 80 + 200 and made["band"] == (20.0, 4000.0)
    config = SimpleNamespace(num_mel_bins=16, spec_size=64, enable_fusion=True)
    assert CLAP.preprocess(config, {})["samples"] == 2 * 48_000  # the whole seconds that a small tower has room for
    assert CLAP.preprocess(config, {"truncation": "rand_trunc"})["bank"] == "clap"


def test_files_of_folders(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    assert hub_file(str(tmp_path), "a.json") == hub_file(str(tmp_path / "a.json"), "b.json") == str(tmp_path / "a.json")
    assert hub_file(str(tmp_path), "b.json", required=False) == ""
    with pytest.raises(CheckpointError, match="nowhere' cannot be found"):
        hub_file(str(tmp_path / "nowhere"), "a.json")


def test_an_unknown_type():
    with pytest.raises(UserError, match="is None"):
        build_audio_tower(None, {"hidden_size": 3}, 1, "float32")
