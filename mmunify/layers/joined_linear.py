"""A linear whose weight lies in several tables, without a copy that holds them all."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def joined_linear(states: Float[Tensor, "n D"], tables: Sequence[Tensor]) -> Float[Tensor, "n V"]:
    """Products of states with the rows of all tables: what `F.linear` makes of the joined table.

    Joining copies the whole table in every step, and keeps the copy for the backward pass; here every table writes
    its own columns of the result.

    Args:
        states: [n D].
        tables: [rows D] each; V is the number of all rows. Their dtype is the states', unless autocast chooses one.
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
    return _JoinedLinear.apply(states.to(dtype), *(table.to(dtype) for table in tables))


class _JoinedLinear(torch.autograd.Function):
    """Gradients go to what needs one, and to nothing else."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(states, *tables)
        made = states.new_empty(len(states), sum(map(len, tables)))
        for columns, table in zip(made.split([*map(len, tables)], dim=1), tables, strict=True):
            torch.mm(states, table.t(), out=columns)
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, *tables = ctx.saved_tensors
        parts = gradient.split([*map(len, tables)], dim=1)
        needs_states, *needs = ctx.needs_input_grad
        to_tables = [part.t() @ states if need else None for part, need in zip(parts, needs, strict=True)]
        if not needs_states:
            return None, *to_tables
        to_states = parts[0] @ tables[0]
        for part, table in zip(parts[1:], tables[1:], strict=True):
            to_states.addmm_(part, table)
        return to_states, *to_tables
