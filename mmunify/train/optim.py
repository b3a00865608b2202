"""The optimiser and its schedule, from a stage's `optim:`."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from mmunify.errors import RecipeError, UserError
from mmunify.extras import require
from mmunify.faults import Fault
from mmunify.train.learns import parameter_names

_EIGHT_BITS = "bitsandbytes::optimizer_update_8bit_blockwise"


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    groups: Sequence[Mapping[str, Any]] = (),
    path: str = "optim",
) -> list[dict[str, Any]]:
    """Learning parameters, grouped by rate and decay. Tensors with one dimension never decay.

    Args:
        lr: peak rate of parameters that no group names.
        weight_decay: likewise.
        groups: `{match: glob, lr: ..., weight_decay: ...}`, the last one that matches decides; what it leaves out
            falls back to the stage's.
        path: where they stand in the recipe, for messages.

    Returns:
        Groups as torch takes them, with the peak rate under "peak_lr".

    Raises:
        RecipeError: a group that matches no learning parameter.
    """
    unused = set(range(len(groups)))
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, names in parameter_names(model):
        if parameter.requires_grad:
            matching = [i for i, group in enumerate(groups) if _matches(names, group["match"])]
            unused -= set(matching)
            chosen = groups[matching[-1]] if matching else {}
            rate, decay = _first(chosen.get("lr"), lr), _first(chosen.get("weight_decay"), weight_decay)
            found.setdefault((rate, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if unused:
        globs = {f"{path}.groups.{i}": groups[i]["match"] for i in sorted(unused)}
        raise RecipeError([Fault(at, f"{glob!r} matches nothing that learns") for at, glob in globs.items()])
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in found.items()
    ]


def build_adamw(
    groups: list[dict[str, Any]], betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019) over parameter groups; one fused kernel where all tensors allow it."""
    return torch.optim.AdamW(groups, betas=(betas[0], betas[1]), eps=eps)


def build_adamw_8bit(
    groups: list[dict[str, Any]], betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
) -> torch.optim.Optimizer:
    """AdamW whose states take a byte each (Dettmers et al., arXiv 2110.02861), by bitsandbytes.

    Tensors of less than 4096 numbers keep states of 32 bits.

    Raises:
        MissingExtraError: bitsandbytes is absent.
        UserError: it can't step tensors on the device where they are.
    """
    bitsandbytes: Any = require("bitsandbytes", "optim.name: adamw_8bit")
    for device in sorted({parameter.device.type for group in groups for parameter in group["params"]}):
        if not _steps_on(device):
            raise UserError(
                f"optim.name: adamw_8bit: bitsandbytes {bitsandbytes.__version__} has no step for tensors on "
                f"{device!r}; upgrade it (pip install -U bitsandbytes), train on a GPU, or use adamw"
            )
    return bitsandbytes.optim.AdamW8bit(groups, betas=(betas[0], betas[1]), eps=eps)


def rate_factor(step: int, steps: int, *, warmup: float = 0.0, schedule: str = "cosine", floor: float = 0.0) -> float:
    """What the peak rate is multiplied with at a step.

    Args:
        step: from 0.
        steps: of the stage.
        warmup: steps of the linear warm-up, or their share of the stage when below 1.
        schedule: what follows: "cosine" or "linear" down to `floor`, or "constant".
        floor: share of the peak that is left at the last step.

    Returns:
        A number in 0..1, above 0 from the first step on.
    """
    rise = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    if step < rise:
        return (step + 1) / (rise + 1)
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - rise) / max(1, steps - rise))
    left = 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * left


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its peak rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def _steps_on(device: str) -> bool:
    """Whether bitsandbytes has an 8-bit step for a type of device."""
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(_EIGHT_BITS, device.upper())
    except RuntimeError:  # older versions have no operator for it: they know GPUs alone
        return device == "cuda"


def _matches(names: Sequence[str], glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in names)


def _first(value: float | None, fallback: float) -> float:
    return fallback if value is None else value
