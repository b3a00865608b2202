"""Averages that leave masked tokens out."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(
    tokens: Float[Tensor, "M N E"], mask: Bool[Tensor, "M N"] | None = None, keepdim: bool = False
) -> Float[Tensor, "M *one E"]:
    """Mean over N of the real tokens; zeros for an item without any."""
    if mask is None:
        return tokens.mean(dim=1, keepdim=keepdim)
    total = torch.where(mask[..., None], tokens, 0.0).sum(dim=1, keepdim=keepdim)
    count = mask.sum(dim=1, keepdim=True)[..., None].clamp(min=1)
    return total / (count if keepdim else count[:, 0])


def masked_pool(
    pool: Callable[[Tensor], Tensor], values: Float[Tensor, "R E *n"], mask: Bool[Tensor, "R *n"] | None = None
) -> tuple[Float[Tensor, "R E *k"], Bool[Tensor, "R *k"] | None]:
    """An average pooling of the real values, and which of its answers have one.

    Args:
        pool: averages over windows of the last dimensions.
        values: channels first.
        mask: True where a value is real.
    """
    if mask is None:
        return pool(values), None
    real = mask.unsqueeze(1)
    share = pool(real.to(values.dtype))
    pooled = pool(torch.where(real, values, 0.0)) / torch.where(share > 0, share, 1.0)
    return pooled, share.squeeze(1) > 0
