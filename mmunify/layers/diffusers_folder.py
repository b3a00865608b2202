"""Networks, autoencoders and schedulers of diffusers, from a pipeline's folder or from their configurations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmunify.errors import CheckpointError, UserError
from mmunify.layers.latents import CodedLatents, FoldedPixels, Latents
from mmunify.layers.weights import check_weights
from mmunify.paths import is_local

DEFAULTS = {
    "unet": "UNet2DConditionModel",
    "transformer": "SanaTransformer2DModel",
    "vae": "AutoencoderKL",
    "scheduler": "DDPMScheduler",
}
"""Classes of configurations that don't say their `_class_name`."""


def load_network(kind: str, path: str | None, config: Mapping[str, Any] | None, owner: str) -> Any:
    """The model in a pipeline's sub-folder, or one with random weights.

    Args:
        kind: the sub-folder: "unet", "transformer", "vae".
        path: hub id or folder of a pipeline.
        config: of the sub-folders, by their names; beside a path it changes what its files say.
        owner: the part, for messages.

    Raises:
        UserError: neither path nor configuration, or a class that diffusers doesn't have.
        CheckpointError: files that are missing or damaged.
    """
    changes = dict((config or {}).get(kind, {}))
    if path is None:
        if not changes:
            raise UserError(f"{owner} needs a path, or a config with {kind!r}; it got neither")
        return _class(changes.pop("_class_name", DEFAULTS[kind]), owner)(**changes)
    found = _class(_class_name(kind, path), owner)
    if torch.get_default_device().type == "meta":
        return found.from_config({**found.load_config(path, subfolder=kind), **changes})
    if is_local(path):
        check_weights(Path(path) / kind)
    try:
        return found.from_pretrained(path, subfolder=kind, use_safetensors=True, low_cpu_mem_usage=False, **changes)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{owner} can't read {kind}/ of {path}: {error}") from error


def load_latents(path: str | None, config: Mapping[str, Any] | None, owner: str) -> Latents:
    """The autoencoder of a pipeline; `fold: n` in the configuration takes squares of pixels in its place.

    Raises:
        UserError, CheckpointError: as `load_network`.
    """
    fold = (config or {}).get("fold")
    if fold is not None:
        return FoldedPixels(fold)
    return CodedLatents(load_network("vae", path, config, owner))


def load_scheduler(path: str | None, config: Mapping[str, Any] | None, owner: str, default: str | None = None) -> Any:
    """The scheduler of a pipeline, or one from its configuration.

    Raises:
        UserError, CheckpointError: as `load_network`.
    """
    changes = dict((config or {}).get("scheduler", {}))
    with torch.device("cpu"):  # its tables are numbers, also where weights are shapes alone
        if path is None:
            return _class(changes.pop("_class_name", default or DEFAULTS["scheduler"]), owner)(**changes)
        found = _class(changes.pop("_class_name", _class_name("scheduler", path)), owner)
        return found.from_pretrained(path, subfolder="scheduler", **changes)


def has_folder(path: str | None, kind: str) -> bool:
    """Whether a local pipeline has this sub-folder; of a hub id, everything is asked for when it is needed."""
    return path is not None and (not is_local(path) or (Path(path) / kind).is_dir())


def require_keys(config: Mapping[str, Any] | None, owner: str) -> None:
    """Refuse a configuration of folders that nothing reads.

    Raises:
        UserError: an unknown key.
    """
    known = (*DEFAULTS, "fold")
    unknown = sorted((config or {}).keys() - set(known))
    if unknown:
        raise UserError(f"config of {owner} has no {unknown[0]!r}; it takes {', '.join(known)}")


def _class(name: str, owner: str) -> Any:
    import diffusers

    found = getattr(diffusers, name, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module | diffusers.SchedulerMixin):
        raise UserError(
            f"{owner} asks for {name!r}, which is no model or scheduler of diffusers {diffusers.__version__}"
        )
    return found


def _class_name(kind: str, path: str) -> str:
    name = "scheduler_config.json" if kind == "scheduler" else "config.json"
    return str(json.loads(_file(path, kind, name).read_text(encoding="utf-8"))["_class_name"])


def _file(path: str, kind: str, name: str) -> Path:
    if not is_local(path):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(path, name, subfolder=kind))
    file = Path(path) / kind / name
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; path: is a folder as a pipeline of diffusers writes it")
    return file
