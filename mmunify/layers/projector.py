"""Linears with an activation between them."""

from collections.abc import Sequence

from torch import nn


def projector(*widths: int) -> nn.Sequential:
    """A linear from every width to the next, GELU between two of them; linears are numbered 0, 2, 4, ..."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in _pairs(widths):
        layers += [nn.GELU(), nn.Linear(fan_in, fan_out)] if layers else [nn.Linear(fan_in, fan_out)]
    return nn.Sequential(*layers)


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(widths, widths[1:], strict=False))
