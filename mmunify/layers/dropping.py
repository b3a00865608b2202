"""Conditions that are left out in training, so that a network can be guided."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import DataError
from mmunify.layers.part_options import TrainingOptions
from mmunify.layers.streams import Streams
from mmunify.types import Condition

Drops = tuple[Bool[Tensor, "K"], Bool[Tensor, "K"]]
"""Where the condition is dropped, and where the source picture is."""


def draw_drops(options: TrainingOptions, condition: Condition, streams: Streams) -> Drops:
    """One uniform number per item decides: condition alone, both, source alone, or none.

    Items that the condition itself marks (`drop`) lose their condition whatever the number says.
    """
    coin = streams.uniform()
    first, second = options.drop, options.drop + options.drop_both
    states = coin < second
    source = (coin >= first) & (coin < second + options.drop_source)
    return (states if condition.drop is None else states | condition.drop), source


def all_drops(condition: Condition, states: bool, source: bool) -> Drops:
    """The same for every item."""
    full = condition.states.new_ones(len(condition.states), dtype=torch.bool)
    return full & states, full & source


class NullStates(nn.Module):
    """What stands in for the states of a dropped condition.

    Args:
        dim: width of the states.
        kind: see `TrainingOptions.null`.
    """

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.needs = frozenset({"null"} if kind == "given" else ())
        self.vector = nn.Parameter(torch.randn(dim) * 0.02) if kind == "learned" else None

    def forward(self, condition: Condition, dropped: Bool[Tensor, "K"]) -> Float[Tensor, "K Q E"]:
        """The condition's states, replaced where it is dropped.

        Raises:
            DataError: "given", but the condition brings nothing along, or something of another shape.
        """
        return torch.where(dropped[:, None, None], self._null(condition), condition.states)

    def _null(self, condition: Condition) -> Float[Tensor, "..."]:
        if self.kind == "zeros":
            return torch.zeros_like(condition.states)
        if self.vector is not None:
            return self.vector.to(condition.states.dtype)
        if condition.null is None or condition.null.shape != condition.states.shape[1:]:
            found = None if condition.null is None else tuple(condition.null.shape)
            raise DataError(
                f"null: given takes Condition.null of shape {tuple(condition.states.shape[1:])}, got {found}; "
                "bring the features of a grey picture along, or say null: zeros"
            )
        return condition.null
