"""Blocks and text embeddings of BERT (https://arxiv.org/abs/1810.04805), with cross-attention to a memory."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmunify.errors import DataError
from mmunify.layers.attention import CrossAttention
from mmunify.layers.feed_forward import FeedForward

NORM_EPS = 1e-12
MAX_TEXT = 512


class BertBlock(nn.Module):
    """Self-attention, cross-attention (where there is one), feed-forward; each followed by add and norm (post-norm).

    With `text`, states are queries and, behind them, words: both see each other, the queries alone read the memory,
    and words have a feed-forward of their own (InstructBLIP, https://arxiv.org/abs/2305.06500).

    Args:
        dim: width of the states.
        memory_dim: width of the memory; None = this block doesn't read it.
        num_heads: of both attentions.
        hidden_dim: inside the feed-forward; None = 4 dim.
        dropout: of states and attention.
        text: whether words get a feed-forward; without one, the block answers for the queries alone.
    """

    def __init__(
        self,
        dim: int,
        memory_dim: int | None,
        num_heads: int,
        hidden_dim: int | None = None,
        dropout: float = 0.0,
        text: bool = False,
    ) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, num_heads=num_heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross = CrossAttention(dim, memory_dim, num_heads=num_heads, dropout=dropout) if memory_dim else None
        self.cross_norm = nn.LayerNorm(dim, eps=NORM_EPS) if memory_dim else None
        self.feed_forward = FeedForward(dim, hidden_dim)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.text_feed_forward = FeedForward(dim, hidden_dim) if text else None
        self.text_feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS) if text else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: Float[Tensor, "M T D"],
        memory: Float[Tensor, "M N E"],
        mask: Bool[Tensor, "M N"] | None = None,
        states_mask: Bool[Tensor, "M T"] | None = None,
        num_queries: int | None = None,
    ) -> Float[Tensor, "M _ D"]:
        """One block. Masks are True where a position is real; states behind `num_queries` (None = all) are words."""
        states = self.attention_norm(states + self.dropout(self.attention(states, states, states_mask)))
        queries = self._read(states[:, :num_queries], memory, mask)
        if self.text_feed_forward is None or self.text_feed_forward_norm is None:
            return queries
        words = states[:, num_queries:] if num_queries is not None else states[:, :0]
        words = self.text_feed_forward_norm(words + self.dropout(self.text_feed_forward(words)))
        return torch.cat([queries, words], dim=1)

    def _read(
        self, queries: Float[Tensor, "M Q D"], memory: Float[Tensor, "M N E"], mask: Bool[Tensor, "M N"] | None
    ) -> Float[Tensor, "M Q D"]:
        """What follows the self-attention, for states that read the memory."""
        if self.cross is not None and self.cross_norm is not None:
            queries = self.cross_norm(queries + self.dropout(self.cross(queries, memory, mask)))
        return self.feed_forward_norm(queries + self.dropout(self.feed_forward(queries)))


class TextEmbedding(nn.Module):
    """Rows of words plus rows of their positions, before the norm.

    Args:
        vocab_size: rows of the table of words.
        dim: width.
        max_length: rows of the table of positions.
    """

    def __init__(self, vocab_size: int, dim: int, max_length: int = MAX_TEXT) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(max_length, dim)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: Int[Tensor, "M L"]) -> Float[Tensor, "M L D"]:
        """Ids of words -> embeddings.

        Raises:
            DataError: a text longer than the table of positions.
        """
        length, longest = ids.shape[1], self.positions.num_embeddings
        if length > longest:
            raise DataError(f"a text of {length} tokens beside a medium; its reader has positions for {longest}")
        return self.words(ids) + self.positions.weight[:length]
