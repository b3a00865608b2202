"""Blocks of Llama (https://arxiv.org/abs/2302.13971) without rotary positions and without a causal mask."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.layers.attention import CrossAttention

NORM_EPS = 1e-5
MULTIPLE = 256


class GatedFeedForward(nn.Module):
    """SwiGLU (https://arxiv.org/abs/2002.05202): reduce(silu(gate(x)) * expand(x)), no biases.

    Args:
        dim: width in and out.
        hidden_dim: width between; None = Llama's: 8/3 dim, rounded up to a multiple of 256.
    """

    def __init__(self, dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = hidden_dim or MULTIPLE * -(-int(8 * dim / 3) // MULTIPLE)
        self.gate = nn.Linear(dim, hidden_dim, bias=False)
        self.expand = nn.Linear(dim, hidden_dim, bias=False)
        self.reduce = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Position by position."""
        return self.reduce(F.silu(self.gate(states)) * self.expand(states))


class LlamaBlock(nn.Module):
    """Attention among all positions, then SwiGLU; each behind an RMSNorm and added (pre-norm), no biases.

    Args:
        dim: width of the states.
        num_heads: of the attention.
        hidden_dim: see `GatedFeedForward`.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.attention = CrossAttention(dim, num_heads=num_heads, bias=False)
        self.feed_forward_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.feed_forward = GatedFeedForward(dim, hidden_dim)

    def forward(
        self, states: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M N D"]:
        """One block; `mask` is True where a position is real."""
        normed = self.attention_norm(states)
        states = states + self.attention(normed, normed, mask)
        return states + self.feed_forward(self.feed_forward_norm(states))
