"""A bidirectional transformer block with rotary positions and normalised queries and keys."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.llama import GatedFeedForward
from mmunify.layers.sdpa import attend

BASE = 10_000.0
NORM_EPS = 1e-6


def rotate(states: Float[Tensor, "M H N d"], base: float = BASE) -> Float[Tensor, "M H N d"]:
    """Rotary positions (https://arxiv.org/abs/2104.09864): halves of a head turn by the place times a frequency."""
    length, width = states.shape[2:]
    frequencies = base ** -(torch.arange(0, width, 2, device=states.device, dtype=torch.float32) / width)
    angles = torch.arange(length, device=states.device, dtype=torch.float32)[:, None] * frequencies
    cosine, sine = (torch.cat([part, part], dim=1).to(states.dtype) for part in (angles.cos(), angles.sin()))
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine


class RotaryBlock(nn.Module):
    """Attention among all positions, then SwiGLU; pre-norm. Queries, keys and values have biases, as in Qwen2.

    Args:
        dim: width of the states.
        num_heads: of the attention.
        hidden_dim: inside the feed-forward; None = Llama's rule.

    Raises:
        UserError: heads of an odd width.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        if dim % (2 * num_heads):
            raise UserError(f"rotary positions need heads of an even width: dim={dim} / num_heads={num_heads}")
        self.num_heads = num_heads
        self.attention_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim, bias=False)
        self.query_norm = nn.RMSNorm(dim // num_heads, eps=NORM_EPS)
        self.key_norm = nn.RMSNorm(dim // num_heads, eps=NORM_EPS)
        self.feed_forward_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.feed_forward = GatedFeedForward(dim, hidden_dim)

    def forward(
        self, states: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M N D"]:
        """One block; `mask` is True where a position is real."""
        states = states + self._attend(self.attention_norm(states), mask)
        return states + self.feed_forward(self.feed_forward_norm(states))

    def _attend(self, states: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None) -> Float[Tensor, "M N D"]:
        q, k, v = (
            rearrange(linear(states), "m n (h d) -> m h n d", h=self.num_heads)
            for linear in (self.query, self.key, self.value)
        )
        q, k = rotate(self.query_norm(q)), rotate(self.key_norm(k))
        seen = None if mask is None else (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]
        return self.output(rearrange(attend(q, k, v, seen), "m h n d -> m n (h d)"))
