"""Learnable queries that read a sequence through a small BERT."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.layers.bert import NORM_EPS, BertBlock


class QueryReader(nn.Module):
    """A Q-Former without words (https://arxiv.org/abs/2301.12597); by default as long as CLIP's text (SmartEdit).

    Args:
        in_dim: width of the sequence.
        out_dim: width of the answer; a linear follows where it isn't `dim`.
        num_queries: length of the answer.
        dim: width of the queries.
        depth: number of blocks.
        num_heads: of every attention.
        cross_attention_frequency: every how many blocks the queries read the sequence, from the first on.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_queries: int = 77,
        dim: int = 768,
        depth: int = 6,
        num_heads: int = 12,
        cross_attention_frequency: int = 2,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.blocks = nn.ModuleList(
            BertBlock(dim, None if i % cross_attention_frequency else in_dim, num_heads) for i in range(depth)
        )
        self.project = nn.Identity() if out_dim == dim else nn.Linear(dim, out_dim)

    def forward(
        self, states: Float[Tensor, "K N E"], mask: Bool[Tensor, "K N"] | None = None
    ) -> Float[Tensor, "K Q C"]:
        """Read; `mask` is True where a state is real."""
        queries = self.norm(self.queries).expand(len(states), -1, -1)
        for block in self.blocks:
            queries = block(queries, states, mask)
        return self.project(queries)
