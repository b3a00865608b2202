"""Shapes of parameters that a strategy has taken apart."""

from typing import Any

import torch


def shape_of(tensor: Any) -> torch.Size:
    """Shape of the whole tensor; ZeRO-3 leaves an empty one behind, which knows it."""
    return getattr(tensor, "ds_shape", tensor.shape)
