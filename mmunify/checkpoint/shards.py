"""A checkpoint as a folder that every rank writes its part of; read again by any number of processes.

    shards.json               number of parts, shape of every tensor and whether it is split
    rank-0.safetensors ...    rows of the split tensors, in the order of the ranks; whole tensors lie in rank 0's
    state.pt                  everything that is no tensor, as plain data

Nothing in it can run code. A plain checkpoint file of Lightning's can be read through the same functions.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mmunify.errors import CheckpointError

_INDEX, _STATE = "shards.json", "state.pt"
_MARK = "tensor::"
"""Stands before the name of a tensor where plain data had that tensor."""

Leaf = Callable[[str], Any]

WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What writing raises on a full disk: Python, torch and safetensors each have their own."""


def save_shards(folder: Path, checkpoint: Mapping[str, Any], rank: int, world: int) -> None:
    """Write this rank's part; every rank calls it, with trees of the same form.

    Args:
        folder: of the checkpoint.
        checkpoint: nested mappings and lists that hold tensors, some of them `DTensor`s split along their rows.
        rank, world: of this process.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    plain = _without_tensors(checkpoint, "", tensors)
    parts = {name: local_rows(tensor) for name, tensor in tensors.items() if rank == 0 or is_split(tensor)}
    save_file({name: rows.detach().cpu().contiguous().clone() for name, rows in parts.items()}, _part(folder, rank))
    if rank == 0:
        torch.save(plain, folder / _STATE)
        facts = {name: {"shape": list(t.shape), "split": is_split(t)} for name, t in tensors.items()}
        (folder / _INDEX).write_text(json.dumps({"world": world, "tensors": facts}))


class CheckpointReader:
    """A checkpoint, file or folder: plain data at once, tensors when they are asked for.

    Args:
        path: of the checkpoint.

    Attributes:
        plain: all of it; in the place of a tensor stands its name.

    Raises:
        CheckpointError: a missing or truncated file, with its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: dict[str, Tensor] = {}
        self._index: dict[str, Any] = {"world": 0, "tensors": {}}
        if path.is_dir():
            self._index = json.loads(_existing(path / _INDEX).read_text())
            for rank in range(self._index["world"]):
                _existing(_part(path, rank))
            self.plain = _load(_existing(path / _STATE))
        else:
            self.plain = _without_tensors(_load(path), "", self._whole)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a whole tensor."""
        whole = self._whole.get(name)
        return tuple(self._index["tensors"][name]["shape"] if whole is None else whole.shape)

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        return self.rows(name, 0, self.shape(name)[0]) if self._is_split(name) else self._read(0, name, slice(None))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor, read from the parts that hold them."""
        if not self._is_split(name):
            return self._read(0, name, slice(start, stop))
        found, first = [], 0
        for rank in range(self._index["world"]):
            length = self._open(rank).get_slice(name).get_shape()[0]
            inside = slice(max(start - first, 0), max(min(stop - first, length), 0))
            if inside.start < inside.stop:
                found.append(self._read(rank, name, inside))
            first += length
        return torch.cat(found) if found else self._read(0, name, slice(0, 0))

    def tree(self, leaf: Leaf | None = None) -> Any:
        """All of it, with whole tensors, or with what `leaf` makes of their names, in their places."""
        return filled(self.plain, leaf or self.tensor)

    def _is_split(self, name: str) -> bool:
        return name not in self._whole and self._index["tensors"][name]["split"]

    def _read(self, rank: int, name: str, rows: slice) -> Tensor:
        if name in self._whole:
            return self._whole[name][rows] if self._whole[name].ndim else self._whole[name]
        part = self._open(rank)
        return part.get_slice(name)[rows] if self.shape(name) else part.get_tensor(name)

    @cache  # noqa: B019  # a reader lives as long as its one checkpoint is being read
    def _open(self, rank: int) -> Any:
        from safetensors import safe_open

        file = _part(self.path, rank)
        try:
            return safe_open(file, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(f"{file} is truncated ({error}); {_advice(file.parent)}") from error


def filled(plain: Any, leaf: Leaf) -> Any:
    """Plain data with what `leaf` makes of a tensor's name where that name stands."""
    if isinstance(plain, str) and plain.startswith(_MARK):
        return leaf(plain.removeprefix(_MARK))
    if isinstance(plain, dict):
        return {key: filled(value, leaf) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return type(plain)(filled(value, leaf) for value in plain)
    return plain


def is_split(tensor: Tensor) -> bool:
    """Whether ranks hold rows of a tensor, and not all of it."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local_rows(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def _without_tensors(tree: Any, path: str, found: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        found[path] = tree
        return _MARK + path
    if isinstance(tree, Mapping):
        return {
            key: _without_tensors(value, f"{path}/{key}" if path else str(key), found) for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return type(tree)(_without_tensors(value, f"{path}/{i}", found) for i, value in enumerate(tree))
    return tree


def _load(file: Path) -> Any:
    if not zipfile.is_zipfile(file):
        raise CheckpointError(f"{file} is truncated; {_advice(file)}")
    return torch.load(file, map_location="cpu", weights_only=True)


def _part(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.safetensors"


def _existing(file: Path) -> Path:
    if not file.is_file():
        held = ", ".join(sorted(p.name for p in file.parent.iterdir())) or "nothing"
        raise CheckpointError(f"{file.parent} has no {file.name} (it holds {held}); {_advice(file.parent)}")
    return file


def _advice(path: Path) -> str:
    return f"bring the file back, or delete {path.name} to start its stage anew"
