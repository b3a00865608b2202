"""Parameters that a step has no use for still take part in it, so that ranks agree on who has a gradient."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def touch(states: Float[Tensor, "*shape"], idle: Iterable[nn.Module]) -> Float[Tensor, "*shape"]:
    """The states as they are, with a gradient of zero for every learning parameter of the idle modules."""
    if not torch.is_grad_enabled():
        return states
    for module in idle:
        for parameter in module.parameters():
            states = states + parameter.sum() * 0 if parameter.requires_grad else states
    return states
