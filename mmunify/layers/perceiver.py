"""A block in which latents read a memory and themselves."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.layers.attention import CrossAttention
from mmunify.layers.feed_forward import FeedForward


class PerceiverBlock(nn.Module):
    """Attention to memory and latents side by side, then a feed-forward; pre-norm, no biases.

    Flamingo's block (https://arxiv.org/abs/2204.14198); that of SEED-X and IP-Adapter differs in the activation.

    Args:
        dim: width of latents and memory.
        num_heads: heads of the attention.
        head_dim: width of a head.
        hidden_dim: inside the feed-forward; None = 4 dim.
        activation: of the feed-forward.
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int, hidden_dim: int | None = None, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.memory_norm = nn.LayerNorm(dim)
        self.latents_norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, num_heads=num_heads, head_dim=head_dim, bias=False)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden_dim, activation=activation, bias=False)

    def forward(
        self,
        latents: Float[Tensor, "M Q D"],
        memory: Float[Tensor, "M N D"],
        mask: Bool[Tensor, "M N"] | None = None,
    ) -> Float[Tensor, "M Q D"]:
        """One block; `mask` is True where the memory is real. Latents always see each other."""
        queries = self.latents_norm(latents)
        seen = None if mask is None else torch.cat([mask, mask.new_ones(latents.shape[:2])], dim=1)
        both = torch.cat([self.memory_norm(memory), queries], dim=1)
        latents = latents + self.attention(queries, both, seen)
        return latents + self.feed_forward(self.feed_forward_norm(latents))
