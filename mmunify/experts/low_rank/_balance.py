"""Balance losses: they keep a gate from using few of its experts. Only valid tokens count.

Both are squared coefficients of variation, which are no sums over tokens. So they gather their statistics over all
ranks: every rank then holds the loss of the global batch, and averaging its gradients over ranks (as DDP and FSDP
do) gives the gradient of that loss.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext
from mmunify.registry import did_you_mean

Balance = Callable[[Tensor, TokenContext], Tensor]
"""Weights [*rows X] and their tokens -> scalar."""


def make_balance(name: str, num_experts: int, delta: int | float, tasks: Sequence[int]) -> Balance | None:
    """The balance loss of that name, None for "none".

    Args:
        name: "none", "cv_squared" or "localized".
        num_experts: of the layer, X.
        delta: see `localized`.
        tasks: see `localized`.

    Raises:
        UserError: no such loss, or an odd number of experts for "localized".
    """
    losses = {"none": None, "cv_squared": cv_squared, "localized": partial(localized, delta=delta, tasks=tuple(tasks))}
    if name not in losses:
        raise UserError(f"no balance loss named {name!r}{did_you_mean(name, list(losses))} Known: {', '.join(losses)}")
    if name == "localized" and num_experts % 2:
        raise UserError(f"balance: localized halves the experts, so num_experts must be even, got {num_experts}")
    return losses[name]


def cv_squared(weights: Float[Tensor, "*rows X"], tokens: TokenContext) -> Float[Tensor, ""]:
    """Squared coefficient of variation of the experts' total weight (Shazeer et al., arXiv 1701.06538, equation 7)."""
    flat = weights.flatten(0, -2)
    valid = tokens.flat("valid", len(flat))
    kept = flat if valid is None else flat * valid[:, None]
    return _squared_cv(_sum_over_ranks(kept.sum(0)), over_ranks=False)


def localized(
    weights: Float[Tensor, "*rows X"], tokens: TokenContext, delta: int | float, tasks: Sequence[int]
) -> Float[Tensor, ""]:
    """Localized balancing of LoRAMoE (arXiv 2312.09979), as its published code computes it.

    `Q[d, n]` is the total weight of expert n in document d; `C[d, n]` is 1 + delta where the expert's half matches
    the document's type (first half: one of `tasks`; second half: any other task), else 1 - delta. The loss is
    var(Z) / mean(Z)^2 over all Z = Q * C, with the unbiased variance. Mind the sign: equal Z asks *less* weight of
    the matching half. The published code also counts prompts and padding; here padding is left out.

    Args:
        weights: of the gate.
        tokens: with the task of every token.
        delta: how far the two halves are pulled apart, 0..1.
        tasks: task indices of the type that belongs to the first half.

    Raises:
        UserError: the task of the tokens is not known.
    """
    flat = weights.flatten(0, -2)
    task, valid = tokens.flat("task", len(flat)), tokens.flat("valid", len(flat))
    if tokens.task is None or task is None:
        raise UserError("balance: localized needs the task of every token, but the token context has no task ids")
    document = _number_documents(tokens.task.shape, tokens.document, flat.device)
    keep = torch.ones_like(document, dtype=torch.bool) if valid is None else valid
    ids, owner = document[keep].unique(return_inverse=True)
    used = flat.new_zeros(len(ids), flat.shape[-1]).index_add(0, owner, flat[keep])
    matches = torch.isin(task[keep], torch.tensor(tasks, dtype=task.dtype, device=flat.device))
    first = torch.zeros(len(ids), dtype=torch.bool, device=flat.device).index_put((owner,), matches)
    in_first_half = torch.arange(flat.shape[-1], device=flat.device) < flat.shape[-1] // 2
    sign = torch.where(first[:, None] == in_first_half, 1.0, -1.0)
    return _squared_cv((used * (1 + delta * sign)).flatten(), over_ranks=True)


def _number_documents(shape: torch.Size, document: Tensor | None, device: torch.device) -> Int[Tensor, "n"]:
    """A number per token [B*T] that only tokens of the same document share, over all rows."""
    row = torch.arange(shape[0], device=device)[:, None].expand(shape)
    if document is None:
        return row.flatten()
    inside = document - document.min()
    return (row * (inside.max() + 1) + inside).flatten()


def _squared_cv(values: Float[Tensor, "n"], over_ranks: bool) -> Float[Tensor, ""]:
    """var / mean^2, zero for fewer than two values; two passes, since the one-pass formula cancels."""
    total = _sum_over_ranks if over_ranks else _as_is
    count, summed = total(torch.stack([values.new_tensor(len(values)), values.sum()]))
    mean = summed / count.clamp(min=1)
    variance = total((values - mean).square().sum()) / (count - 1).clamp(min=1)
    return variance / (mean.square() + 1e-10)


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


def _sum_over_ranks(values: Tensor) -> Tensor:
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return _SumOverRanks.apply(values) if several else values  # pyright: ignore[reportReturnType]


def _as_is(values: Tensor) -> Tensor:
    return values
