"""The processes of a run: what they tell each other, and tensors whose rows they share."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from mmunify.checkpoint.shards import is_split
from mmunify.layers.shapes import shape_of


def num_ranks() -> int:
    """Processes that train together; 1 before they have found each other."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def exchange(items: list[Any]) -> list[Any]:
    """The items of all ranks, in the order of the ranks."""
    if num_ranks() == 1:
        return items
    gathered: list[Any] = [None] * num_ranks()
    dist.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor; every rank must ask."""
    if local_part(tensor) is not tensor:
        return _of_parts(tensor)
    return tensor.full_tensor() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def local_part(tensor: Any) -> Tensor:
    """What this rank keeps of a parameter that ZeRO-3 has split: a piece of its numbers in a row; others whole."""
    return getattr(tensor, "ds_tensor", tensor)


def part_of_rank(row: Tensor, part: Tensor) -> Tensor:
    """Of all numbers of a tensor those that this rank's part of it holds; the last parts may be longer.

    Args:
        row: all numbers in a row.
        part: of this rank, as long as every other one's.
    """
    start = dist.get_rank() * len(part)
    return row[start : start + len(part)]


def _of_parts(tensor: Tensor) -> Tensor:
    part, shape = local_part(tensor), shape_of(tensor)
    row = part.new_empty(num_ranks() * len(part))
    dist.all_gather_into_tensor(row, part)
    return row[: shape.numel()].view(shape)


@torch.no_grad()
def copy_rows(target: Tensor, rows: Any) -> None:
    """Fill a tensor, or this rank's rows of it.

    Args:
        target: split or not.
        rows: (start, stop) -> those rows of the values.
    """
    local, start = row_range(target)
    local.copy_(rows(start, start + len(local)) if local.ndim else rows(0, 1))


def row_range(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows that this rank holds, and the number of the first."""
    if not is_split(tensor):
        return tensor, 0
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    per_rank = -(-tensor.shape[0] // mesh.size())
    return tensor.to_local(), min(per_rank * mesh.get_local_rank(), tensor.shape[0])  # type: ignore[attr-defined]


def split_like(values: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on all ranks, split as another one is."""
    from torch.distributed.tensor import distribute_tensor

    if not is_split(like) or values.shape != like.shape:
        return values
    return distribute_tensor(values.to(like.device), like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]
