"""Audio towers of transformers: weights of a folder or hub id, or random ones of a configuration."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmunify.errors import CheckpointError, UserError
from mmunify.layers.sounds import SoundPreprocess
from mmunify.layers.weights import check_weights, quiet_loading

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioKind:
    """One kind of audio tower.

    Attributes:
        config: transformers' configuration of the tower.
        tower: its class; whole: that of the model around it, if there is one, and `inner`: where the tower is in it.
        section: of a whole model's configuration that is the tower's ("" = all of it).
        preprocess: configuration, settings of the folder's feature extractor -> how sounds become numbers.
        extractor: name of transformers' feature extractor.
    """

    config: str
    tower: str
    preprocess: Callable[[Any, Settings], dict[str, Any]]
    extractor: str
    whole: str = ""
    inner: str = ""
    section: str = ""


def _whisper(config: Any, found: Settings) -> dict[str, Any]:
    hop, columns = found.get("hop_length", 160), 2 * config.max_source_positions
    rate = found.get("sampling_rate", 16_000)
    return {
        "bank": "whisper",
        "size": (config.num_mel_bins, columns),
        "sample_rate": rate,
        "samples": columns * hop,
        "window": found.get("n_fft", 400),
        "hop": hop,
        "band": (0.0, 8000.0),
    }


def _ast(config: Any, found: Settings) -> dict[str, Any]:
    rate, normalised = found.get("sampling_rate", 16_000), found.get("do_normalize", True)
    return {
        "bank": "kaldi",
        "size": (config.num_mel_bins, config.max_length),
        "mean": (found.get("mean", -4.2677393) if normalised else 0.0,),
        "std": (2 * found.get("std", 4.5689974) if normalised else 1.0,),
        "sample_rate": rate,
        "samples": rate // 100 * (config.max_length - 1) + rate // 40,
        "window": rate // 40,
        "hop": rate // 100,
        "band": (20.0, rate / 2),
    }


def _clap(config: Any, found: Settings) -> dict[str, Any]:
    rate, hop = found.get("sampling_rate", 48_000), found.get("hop_length", 480)
    room = (config.spec_size * (config.spec_size // config.num_mel_bins) - 1) * hop // rate
    samples = rate * found.get("max_length_s", max(1, min(10, room)))
    fused = found.get("truncation", "fusion" if config.enable_fusion else "rand_trunc") == "fusion"
    return {
        "bank": "clap_fusion" if fused else "clap",
        "size": (config.num_mel_bins, samples // hop + 1),
        "sample_rate": rate,
        "samples": samples,
        "window": found.get("fft_window_size", 1024),
        "hop": hop,
        "band": (float(found.get("frequency_min", 0)), float(found.get("frequency_max", 14_000))),
    }


WHISPER = AudioKind(
    config="WhisperConfig",
    tower="WhisperEncoder",
    whole="WhisperModel",
    inner="encoder",
    preprocess=_whisper,
    extractor="WhisperFeatureExtractor",
)
CLAP = AudioKind(
    config="ClapAudioConfig",
    tower="ClapAudioModel",
    whole="ClapModel",
    inner="audio_model",
    section="audio_config",
    preprocess=_clap,
    extractor="ClapFeatureExtractor",
)
AST = AudioKind(config="ASTConfig", tower="ASTModel", preprocess=_ast, extractor="ASTFeatureExtractor")

KINDS = {"whisper": WHISPER, "clap": CLAP, "clap_audio_model": CLAP, "audio-spectrogram-transformer": AST}
"""`model_type` of a configuration -> what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTower:
    """A tower, what it is, and how sounds become its numbers."""

    kind: AudioKind
    model: Any
    preprocess: SoundPreprocess


def build_audio_tower(path: str | None, config: dict | None, num_segments: int, dtype: str) -> AudioTower:
    """Weights of `path`; random ones, or on the meta device none at all, of a configuration.

    Raises:
        UserError: neither path nor config, or a model of another type.
        CheckpointError: files that are missing or damaged.
    """
    on_meta = torch.get_default_device().type == "meta"
    described = path is None or (on_meta and config is not None)
    settings = _given(config) if described else _read_json(str(path), "config.json")
    kind = KINDS.get(settings.get("model_type", ""))
    if kind is None:
        raise UserError(
            f"hf_audio reads models of type {', '.join(KINDS)}; {path or config!r} is {settings.get('model_type')!r}"
        )
    whole = kind.section in settings if kind.section else "WhisperEncoder" not in (settings.get("architectures") or [])
    made = _made_config(kind, settings[kind.section] if whole and kind.section else settings)
    model = _from_config(kind, made) if path is None or on_meta else _load(kind, path, made, whole, dtype)
    found = {} if described or path is None else _read_json(path, "preprocessor_config.json", required=False)
    numbers = kind.preprocess(made, found)
    return AudioTower(kind=kind, model=model, preprocess=SoundPreprocess(num_segments=num_segments, **numbers))


def hub_file(path: str, name: str, required: bool = True) -> str:
    """A file of a folder or of a hub repository; `path` itself if it is a file; "" if it isn't there and needn't be.

    Raises:
        CheckpointError: nowhere to be found.
    """
    from transformers.utils import cached_file

    if Path(path).is_file():
        return path
    if Path(path).is_dir():
        return str(Path(path) / name) if required or (Path(path) / name).is_file() else ""
    try:
        return cached_file(path, name, _raise_exceptions_for_missing_entries=required) or ""
    except OSError as error:
        raise CheckpointError(f"the audio tower {path!r} cannot be found: {error}") from error


def _given(config: dict | None) -> dict[str, Any]:
    if config is None:
        raise UserError(
            "an hf_audio encoder needs path: (hub id or folder) or config: (model_type and arguments of the "
            "transformers configuration); got neither"
        )
    return dict(config)


def _read_json(path: str, name: str, required: bool = True) -> dict[str, Any]:
    file = hub_file(path, name, required)
    try:
        return json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} of the audio tower {path!r} cannot be read: {error}") from error


def _class(name: str) -> Any:
    """A class of transformers; some towers are not among its public names."""
    import transformers
    from transformers.models.whisper import modeling_whisper

    return getattr(transformers, name, None) or getattr(modeling_whisper, name)


def _made_config(kind: AudioKind, settings: Settings) -> Any:
    return _class(kind.config)(**{key: value for key, value in settings.items() if key != "model_type"})


def _from_config(kind: AudioKind, config: Any) -> nn.Module:
    return _class(kind.tower)(config)


def _load(kind: AudioKind, path: str, config: Any, whole: bool, dtype: str) -> Any:
    if Path(path).is_dir():
        check_weights(path)
    quiet_loading(path)
    around = whole and bool(kind.whole)
    made = _class(kind.whole if around else kind.tower)
    options: dict[str, Any] = {} if around and kind.section else {"config": config}
    try:
        model, report = made.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # OSError, RuntimeError on shapes, ...: all mean that the files can't be used
        raise CheckpointError(f"the audio tower {path!r} cannot be loaded: {error}") from error
    prefix = f"{kind.inner}." if around else ""
    missing = sorted(name for name in report["missing_keys"] if name.startswith(prefix))
    if missing:
        raise CheckpointError(f"{path!r} lacks {len(missing)} tensors of its audio tower, first {missing[0]!r}")
    return model.get_submodule(kind.inner) if around else model
