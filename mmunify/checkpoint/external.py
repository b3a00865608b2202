"""Parts whose weights a bundle doesn't hold: which tensors their paths provide, and whether the files are the same."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from mmunify.errors import CheckpointError
from mmunify.parts import Part
from mmunify.paths import ASSETS, PACKAGE, is_path, resolve_path

INSIDE = "bundle:"
"""Prefix of a path inside the bundle, in the recipe of a full bundle."""

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


def external_parts(model: nn.Module) -> Iterator[tuple[str, Part]]:
    """Every part that was loaded from a path, by the name of its module."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, Part) and m.external is not None)


def is_external(name: str, external: Mapping[str, Part]) -> bool:
    """Whether the path of an external part provides the tensor: not what tuners and new tokens added to the part."""
    for path, part in external.items():
        inner = name.removeprefix(f"{path}.")
        if inner != name and ".low_rank." not in name and not any(fnmatchcase(inner, glob) for glob in part.added):
            return True
    return False


def weight_digests(path: str) -> dict[str, str]:
    """sha256 of every weight file of a folder, of a file, or of a hub repository in the local cache."""
    root = _local_root(path)
    if root is None:
        return {}
    files = [root] if root.is_file() else sorted(p for p in root.iterdir() if p.suffix in _WEIGHT_SUFFIXES)
    return {file.name: _file_digest(file) for file in files}


def check_external(folder: Path, recorded: Mapping[str, Any], model: nn.Module) -> None:
    """Compare the weight files of external parts with those that a bundle was saved with.

    Args:
        folder: of the bundle, for messages.
        recorded: name of the part -> path and checksums.
        model: built from the bundle's recipe.

    Raises:
        CheckpointError: another file under the same path.
    """
    for name, part in external_parts(model):
        files = recorded.get(name, {}).get("files", {})
        now = weight_digests(str(part.external)) if files else {}
        changed = sorted(file for file in files.keys() | now.keys() if files.get(file) != now.get(file))
        if changed:
            raise CheckpointError(
                f"{name} of bundle {folder} comes from {part.external}, whose {', '.join(changed)} is not what it was "
                "trained with (sha256 differs); bring the old files back, or save bundles with full=True"
            )


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local_root(path: str) -> Path | None:
    """The folder or file of an external part: a path of this machine, or what the hub's cache holds of a repository."""
    local = Path(resolve_path(path.removeprefix("local-dir:"))).expanduser()
    if local.exists():
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path.removeprefix("hf-hub:"), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError):
        return None


def portable_path(path: str) -> str:
    """`assets:...` for what lies inside the package, else the path as it is."""
    assets = f"{PACKAGE / 'assets'}/"
    return ASSETS + path.removeprefix(assets) if path.startswith(assets) else path


def with_absolute_paths(value: Any, key: str = "") -> Any:
    """Paths of this machine made absolute, but for those inside the package, which every machine has."""
    if isinstance(value, dict):
        return {name: with_absolute_paths(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [with_absolute_paths(item, key) for item in value]
    return resolve_path(value) if is_path(key, value) and not value.startswith(ASSETS) else value


def copy_external(model: Any, sources: list[str], folder: Path) -> Any:
    """Copy external parts into a bundle.

    Args:
        model: the recipe's `model:`, as a plain tree.
        sources: paths and hub ids of the parts.
        folder: of the bundle.

    Returns:
        The tree with paths into the bundle.

    Raises:
        CheckpointError: a hub id that is not in the local cache.
    """
    places = {}
    for number, source in enumerate(sources):
        root = _local_root(source)
        if root is None:
            raise CheckpointError(f"{source} is neither on this machine nor in the hub's cache, so it can't be copied")
        place = folder / "external" / str(number)
        place.parent.mkdir(exist_ok=True)
        shutil.copytree(root, place) if root.is_dir() else shutil.copy(root, place)
        places[source] = f"{INSIDE}external/{number}"
    return _replaced(model, lambda text: places.get(resolve_path(text), places.get(text, text)))


def with_inside_paths(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A full bundle's recipe with its paths into the bundle made absolute."""
    return _replaced(tree, lambda text: f"{folder}/{text.removeprefix(INSIDE)}" if text.startswith(INSIDE) else text)


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
