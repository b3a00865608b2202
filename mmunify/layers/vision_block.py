"""A block of a plain vision transformer."""

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.layers.attention import CrossAttention
from mmunify.layers.feed_forward import FeedForward


class VisionBlock(nn.Module):
    """Self-attention, then a feed-forward, each behind a norm and around a residual (https://arxiv.org/abs/2010.11929).

    Args:
        dim: width of the tokens.
        num_heads: of the attention.
        hidden_dim: inside the feed-forward; None = 4 dim.
        norm_eps: of both norms.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int | None = None, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = CrossAttention(dim, num_heads=num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.feed_forward = FeedForward(dim, hidden_dim)

    def forward(self, tokens: Float[Tensor, "M N E"]) -> Float[Tensor, "M N E"]:
        """One block."""
        states = self.attention_norm(tokens)
        tokens = tokens + self.attention(states, states)
        return tokens + self.feed_forward(self.feed_forward_norm(tokens))
