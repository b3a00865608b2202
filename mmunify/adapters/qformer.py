"""Learnable queries that read the encoder's tokens through a small BERT."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.attention import CrossAttention
from mmunify.layers.feed_forward import FeedForward
from mmunify.layers.positions import with_positions
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

NORM_EPS = 1e-12  # BERT's


@ADAPTERS.register("qformer")
class QFormerAdapter(Adapter):
    """The Q-Former of BLIP-2 (https://arxiv.org/abs/2301.12597), image side: queries -> blocks -> linear to D.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        num_queries: Q, the number of slots.
        depth: number of blocks (BLIP-2: 12).
        dim: width of the queries; None = E (BLIP-2: 768).
        num_heads: heads of every attention; None = one per 64 numbers of `dim`.
        hidden_dim: width inside the feed-forward; None = 4 dim.
        cross_attention_frequency: every how many blocks the queries read the tokens, from the first on.
        dropout: of states and attention (BLIP-2 trains with 0.1).
        positions: add 2-D positions to the tokens of a raster; for towers that say little about place.

    Raises:
        UserError: a depth or a frequency below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_queries: int = 32,
        depth: int = 6,
        dim: int | None = None,
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        cross_attention_frequency: int = 2,
        dropout: float = 0.0,
        positions: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or cross_attention_frequency < 1:
            raise UserError(
                f"a qformer needs depth and cross_attention_frequency of at least 1, "
                f"got {depth} and {cross_attention_frequency}"
            )
        dim = dim or in_dim
        num_heads = num_heads or max(1, dim // 64)
        self.positions, self.num_queries = positions, num_queries
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            QFormerBlock(dim, None if i % cross_attention_frequency else in_dim, num_heads, hidden_dim, dropout)
            for i in range(depth)
        )
        self.project = nn.Linear(dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        """Q slots, whatever the encoder's layout."""
        return Layout.of(self.num_queries)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, Q, D)."""
        memory = with_positions(features) if self.positions else features.tokens
        states = self.dropout(self.norm(self.queries)).expand(len(memory), -1, -1)
        for block in self.blocks:
            states = block(states, memory, features.mask)
        return Embeds(tokens=self.project(states))


class QFormerBlock(nn.Module):
    """Self-attention, cross-attention (where there is one), feed-forward; each followed by add and norm (post-norm).

    Args:
        dim: width of the queries.
        memory_dim: width of the tokens; None = this block doesn't read them.
        num_heads: of both attentions.
        hidden_dim: inside the feed-forward; None = 4 dim.
        dropout: of states and attention.
    """

    def __init__(
        self, dim: int, memory_dim: int | None, num_heads: int, hidden_dim: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, num_heads=num_heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross = CrossAttention(dim, memory_dim, num_heads=num_heads, dropout=dropout) if memory_dim else None
        self.cross_norm = nn.LayerNorm(dim, eps=NORM_EPS) if memory_dim else None
        self.feed_forward = FeedForward(dim, hidden_dim)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: Float[Tensor, "M Q D"],
        memory: Float[Tensor, "M N E"],
        mask: Bool[Tensor, "M N"] | None = None,
    ) -> Float[Tensor, "M Q D"]:
        """One block; `mask` is True where the memory is real."""
        states = self.attention_norm(states + self.dropout(self.attention(states, states)))
        if self.cross is not None and self.cross_norm is not None:
            states = self.cross_norm(states + self.dropout(self.cross(states, memory, mask)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))
