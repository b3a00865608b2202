"""The running mean of what learns (EMA): what a stage with `ema:` leaves behind."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mmunify.train.learns import parameter_names
from mmunify.train.ranks import local_part


class Average(nn.Module):
    """Exponential mean of every learning parameter, in float32 at least, split as the parameter is.

    Early steps count more: at step t the decay is min(decay, (1 + t) / (10 + t)), so that the start is forgotten.

    Args:
        model: whose learning parameters are averaged.
        decay: share of the mean that stays in every step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        # Frozen parameters, not buffers: DDP would send buffers around before every step.
        means = {name: nn.Parameter(_precise(p).clone(), requires_grad=False) for name, p in _learning(model)}
        self.means = nn.ParameterDict(means)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the parameters as they are after `step` (from 0) into the mean."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in _learning(model):
            local_part(self.means[name]).lerp_(_precise(local_part(parameter)), weight)

    @torch.no_grad()
    def copy_into(self, model: nn.Module) -> None:
        """Give the parameters the values of the mean."""
        for name, parameter in _learning(model):
            local_part(parameter).copy_(local_part(self.means[name]))


def mean_name(name: str) -> str:
    """A parameter's name inside the average; dots are taken."""
    return name.replace(".", "/")


def _learning(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((mean_name(names[0]), p) for p, names in parameter_names(model) if p.requires_grad)


def _precise(parameter: Tensor) -> Tensor:
    values = parameter.detach()
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
