"""Sums over ranks inside a loss."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


class _SumOverRanks(torch.autograd.Function):
    """all_reduce whose backward is all_reduce: what a rank gave counts in the loss of every rank."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Sum of every rank's values."""
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sum of every rank's gradients."""
        summed = grad.clone()
        dist.all_reduce(summed)
        return summed


def sum_over_ranks(values: Tensor, over_ranks: bool = True) -> Tensor:
    """Sum over all processes, differentiable; `values` themselves when there is one process or none is wanted."""
    several = over_ranks and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return _SumOverRanks.apply(values) if several else values  # pyright: ignore[reportReturnType]
