"""Vision towers of transformers: weights of a folder or hub id, or random ones of a configuration."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmunify.errors import CheckpointError, UserError
from mmunify.layers.weights import check_weights, quiet_loading

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerKind:
    """What differs between the towers.

    Attributes:
        name: of the encoder, for messages; title: of the tower.
        classes: names of transformers' configuration and model.
        kinds: `model_type` of a tower and of a whole model around it.
        mean, std: of the pixels, where a folder says nothing.
        hint: what to do about another `model_type`.
    """

    name: str
    title: str
    classes: tuple[str, str]
    kinds: tuple[str, ...]
    mean: Numbers
    std: Numbers
    hint: str = ""


CLIP = TowerKind(
    name="clip",
    title="CLIP",
    classes=("CLIPVisionConfig", "CLIPVisionModel"),
    kinds=("clip", "clip_vision_model"),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
SIGLIP = TowerKind(
    name="siglip",
    title="SigLIP",
    classes=("SiglipVisionConfig", "SiglipVisionModel"),
    kinds=("siglip", "siglip_vision_model"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    hint="; SigLIP2 checkpoints of a fixed resolution are of type 'siglip', those named naflex are not supported",
)


def build_tower(kind: TowerKind, path: str | None, config: dict | None, dtype: str, revision: str | None) -> Any:
    """Weights of `path`; random ones, or on the meta device none at all, of a configuration.

    Raises:
        UserError: neither path nor config, or a folder of another kind of model.
        CheckpointError: files that are missing or damaged.
    """
    on_meta = torch.get_default_device().type == "meta"
    if path is None or (on_meta and config is not None):
        settings = _given_settings(kind, config)
    else:
        settings = _read_settings(kind, path, revision)
    made_config, made_model = _classes(kind)
    described = made_config(**{key: value for key, value in settings.items() if key != "model_type"})
    if path is None or on_meta:
        return made_model(described)
    return _load_tower(kind, path, described, dtype, revision)


def statistics(kind: TowerKind, path: str | None, revision: str | None) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of the folder's image processor, or the kind's own."""
    local = path is not None and (Path(path).is_dir() or torch.get_default_device().type != "meta")
    found = _read_json(kind, str(path), "preprocessor_config.json", revision, required=False) if local else {}
    return tuple(found.get("image_mean", kind.mean)), tuple(found.get("image_std", kind.std))


def absolute_layer(kind: TowerKind, layer: int, depth: int) -> int:
    """Index from the front: 0 = embeddings, `depth` = last layer.

    Raises:
        UserError: the tower doesn't have that layer.
    """
    if not -depth - 1 <= layer <= depth:
        raise UserError(
            f"{kind.name} has no layer {layer}: its {depth} layers make hidden states 0..{depth}, "
            f"or {-depth - 1}..-1 from the end"
        )
    return layer % (depth + 1)


def tower_grid(settings: Any) -> tuple[int, int]:
    """Rows and columns of a tower's patches."""
    side = settings.image_size // settings.patch_size
    return side, side


def _classes(kind: TowerKind) -> tuple[Any, Any]:
    import transformers

    return getattr(transformers, kind.classes[0]), getattr(transformers, kind.classes[1])


def _given_settings(kind: TowerKind, config: dict | None) -> dict[str, Any]:
    if config is None:
        raise UserError(
            f"a {kind.name} encoder needs path: (hub id or folder) or config: (arguments of {kind.classes[0]}); "
            "got neither"
        )
    return dict(config)


def _read_settings(kind: TowerKind, path: str, revision: str | None) -> dict[str, Any]:
    settings = _read_json(kind, path, "config.json", revision)
    found = settings.get("model_type")
    if found not in kind.kinds:
        wanted = f"not a {kind.title} vision tower ({' or '.join(kind.kinds)})"
        raise UserError(f"{path!r} holds a model of type {found!r}, {wanted}{kind.hint}")
    return settings.get("vision_config", settings)


def _load_tower(kind: TowerKind, path: str, config: Any, dtype: str, revision: str | None) -> Any:
    if Path(path).is_dir():
        check_weights(path)
    quiet_loading(path)
    hub: dict[str, Any] = {"revision": revision, "use_safetensors": True, "output_loading_info": True}
    try:
        loaded: Any = _classes(kind)[1].from_pretrained(path, config=config, dtype=getattr(torch, dtype), **hub)
    except Exception as error:  # OSError, RuntimeError on shapes, ...: all mean that the files can't be used
        raise CheckpointError(f"the {kind.name} tower {path!r} cannot be loaded: {error}") from error
    model, report = loaded
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise CheckpointError(f"{path!r} lacks {len(names)} tensors of its vision tower, first {names[0]!r}")
    return model


def _read_json(kind: TowerKind, path: str, name: str, revision: str | None, required: bool = True) -> dict[str, Any]:
    from transformers.utils import cached_file

    try:
        file = cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=required)
    except OSError as error:
        raise CheckpointError(f"the {kind.name} tower {path!r} cannot be found: {error}") from error
    if file is None:
        return {}
    with open(file, encoding="utf-8") as stream:
        return json.load(stream)
