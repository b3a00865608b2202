"""Folders of parts that have no format of another library: config.json and model.safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmunify.errors import CheckpointError, UserError


def write_part(
    folder: str | Path, name: str, sizes: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> Path:
    """Write a part's sizes and weights.

    Args:
        folder: where to; made if missing.
        name: of the part.
        sizes: arguments that its shapes depend on, `in_dim` among them.
        tensors: its state dict.
        dtype: of the stored weights.

    Returns:
        The folder.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model_type": name, **sizes}, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    stored = {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def read_sizes(path: str, name: str, in_dim: int) -> dict[str, Any]:
    """The sizes that `write_part` wrote.

    Raises:
        CheckpointError: there is no such folder.
        UserError: it holds another part, or one for features of another width.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; path: of a {name} is a folder written by its save_folder")
    sizes = json.loads(file.read_text(encoding="utf-8"))
    found = sizes.pop("model_type", name)
    if found != name:
        raise UserError(f"{path!r} holds a {found}, not a {name}")
    if sizes.get("in_dim") != in_dim:
        raise UserError(f"{path!r} decodes features of width {sizes.get('in_dim')}, the encoder's are {in_dim} wide")
    return sizes
