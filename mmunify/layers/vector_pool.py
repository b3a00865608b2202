"""A sequence of fixed length as one vector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.layers.sdpa import attend


class VectorPool(nn.Module):
    """The mean of the states attends to itself and to them (CLIP's pooling, https://arxiv.org/abs/2103.00020).

    Args:
        length: of the sequence.
        dim: width of the states, a multiple of `num_heads`.
        out_dim: width of the vector.
        num_heads: of the attention.
    """

    def __init__(self, length: int, dim: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.places = nn.Parameter(torch.randn(length + 1, dim) / dim**0.5)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, out_dim)

    def forward(self, states: Float[Tensor, "K N D"]) -> Float[Tensor, "K P"]:
        """(K, N, D) -> (K, P)."""
        states = torch.cat([states.mean(1, keepdim=True), states], dim=1) + self.places
        q, k, v = (
            layer(each).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, each in ((self.query, states[:, :1]), (self.key, states), (self.value, states))
        )
        return self.output(attend(q, k, v).transpose(1, 2).flatten(2)[:, 0])
