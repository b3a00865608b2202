"""The layout in which LLaVA's authors publish: https://github.com/haotian-liu/LLaVA."""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from mmunify.checkpoint.family import NEWLINE, Tree, backbone_node
from mmunify.checkpoint.names import Names
from mmunify.errors import CheckpointError
from mmunify.layers.weights import check_weights, read_weights

BACKBONES = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}
"""Their `model_type` -> the language model's."""

_PROJECTOR = re.compile(r"mlp(\d+)x_gelu")


def is_original(settings: Tree) -> bool:
    """Whether a config.json is of this layout."""
    return "mm_vision_tower" in settings and settings.get("model_type") in BACKBONES


def original_names(settings: Tree) -> Names:
    """The table of this layout for a model with these settings."""
    tower = "encoders.image.encoder.model." if _is_tiled(settings) else "encoders.image.model."
    return Names(
        [
            ("model.vision_tower.vision_tower.vision_model.", tower),
            ("model.mm_projector.*.", "adapters.image.layers.*."),
            ("model.mm_projector.", "adapters.image.layers.0."),
            ("model.image_newline", "backbone.new_rows.layout"),
            ("lm_head.", "backbone.lm.lm_head."),
            ("model.", "backbone.lm.model."),
        ]
    )


def original_nodes(settings: Tree) -> Tree:
    """Our `model:` nodes for a config.json of this layout. The tower comes from where its authors published it.

    Raises:
        CheckpointError: a projector or a way of joining tiles that ours don't have.
    """
    encoder: Tree = {
        "name": "clip",
        "path": settings["mm_vision_tower"],
        "layer": settings.get("mm_vision_select_layer", -2),
        "drop_class": settings.get("mm_vision_select_feature", "patch") == "patch",
        "fit": "pad" if settings.get("image_aspect_ratio", "pad") == "pad" else "crop",
    }
    if _is_tiled(settings):
        canvases = [list(canvas) for canvas in settings["image_grid_pinpoints"]]
        encoder = {"name": "anyres", "encoder": encoder, "canvases": canvases, "newline": NEWLINE}
    return {
        "encoders": {"image": encoder},
        "adapters": {"image": {"name": "mlp", "depth": _depth(settings), "bare": True}},
        "backbone": backbone_node(_language_config(settings), settings.get("torch_dtype")),
        "heads": {"text": {"name": "text"}},
    }


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files.

    Raises:
        CheckpointError: there are none (pickles are refused), or one is damaged.
    """
    check_weights(folder)
    return {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in read_weights(file).items()
    }


def read_settings(file: Path) -> Tree:
    """A JSON file, or nothing where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _language_config(settings: Tree) -> Any:
    from transformers import AutoConfig

    kind = BACKBONES[settings["model_type"]]
    known = AutoConfig.for_model(kind).to_dict()
    own = {"model_type", "architectures", "transformers_version", "dtype"}
    chosen = {key: value for key, value in settings.items() if key in known.keys() - own}
    return AutoConfig.for_model(kind, **chosen)


def _depth(settings: Tree) -> int:
    kind = settings.get("mm_projector_type", "linear")
    found = _PROJECTOR.fullmatch(kind)
    if kind != "linear" and found is None:
        raise CheckpointError(f"mm_projector_type {kind!r}: linear and mlp<N>x_gelu are read")
    return int(found[1]) if found else 1


def _is_tiled(settings: Tree) -> bool:
    """Whether pictures are cut into tiles (LLaVA-NeXT).

    Raises:
        CheckpointError: tiles are joined otherwise than by `spatial_unpad`.
    """
    if settings.get("image_aspect_ratio") != "anyres":
        return False
    merging = settings.get("mm_patch_merge_type", "flat")
    if merging != "spatial_unpad":
        raise CheckpointError(f"mm_patch_merge_type {merging!r} of an anyres model: spatial_unpad is read")
    return True
