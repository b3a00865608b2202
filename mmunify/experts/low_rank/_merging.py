"""LoRA terms merged into the frozen weights, and taken out again."""

import torch
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._inject import LowRankLinear, named_modules


def merge(module: nn.Module) -> list[str]:
    """Add every LoRA term to its linear's weight and switch the term off; those that are merged stay so.

    A merged weight is what a state dict holds, so unmerge before saving a bundle.

    Returns:
        Names of the linears.

    Raises:
        UserError: a term that depends on its input (a mixture has no one weight), or a weight that is shared.
    """
    linears = _wrapped(module)
    owners = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    for name, linear in linears.items():
        if not hasattr(linear.low_rank, "weight_change"):
            kind = type(linear.low_rank).__name__
            raise UserError(f"merge: {name} has a {kind}, whose weights depend on its input, so it can't be merged")
        if owners.count(id(linear.weight)) > 1:
            raise UserError(f"merge: the weight of {name} is shared with another module, which would change too")
    return _move(linears, merged=True)


def unmerge(module: nn.Module) -> list[str]:
    """Subtract merged terms again; in half precision a weight can come back one rounding step off.

    Returns:
        Names of the linears.
    """
    return _move(_wrapped(module), merged=False)


def _wrapped(module: nn.Module) -> dict[str, LowRankLinear]:
    return {name: child for name, child in named_modules(module).items() if isinstance(child, LowRankLinear)}


@torch.no_grad()
def _move(linears: dict[str, LowRankLinear], merged: bool) -> list[str]:
    changed = {name: linear for name, linear in linears.items() if getattr(linear.low_rank, "merged", merged) != merged}
    for linear in changed.values():
        change: Tensor = linear.low_rank.weight_change()  # type: ignore[operator]
        linear.weight.copy_(linear.weight.to(change.dtype) + (change if merged else -change))
        linear.low_rank.merged = merged  # type: ignore[assignment]
    return list(changed)
