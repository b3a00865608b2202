"""Learnable queries that read a raster in one step of cross-attention."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.attention import CrossAttention
from mmunify.layers.positions import sincos_2d
from mmunify.layers.rasters import Grid, resize_table

STD = 0.02


class AttentionPool(nn.Module):
    """One cross-attention from a square of queries to tokens, with 2-D positions (Qwen-VL, https://arxiv.org/abs/2308.12966).

    q = norm(queries) + places, k = norm(shrink(tokens)) + places, v = norm(shrink(tokens)). There is no residual, no
    feed-forward and no norm behind. The tokens' places are those of the queries, resized to the tokens' raster.

    Args:
        in_dim: width of the tokens.
        dim: width of the queries and of the answer.
        num_queries: a square number.
        num_heads: of the attention; None = one per 128 numbers of `dim`.
        norm_eps: of both norms.

    Raises:
        UserError: `num_queries` is no square.
    """

    def __init__(
        self, in_dim: int, dim: int, num_queries: int = 64, num_heads: int | None = None, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        side = math.isqrt(max(num_queries, 0))
        if side * side != num_queries or not side:
            raise UserError(
                f"queries with 2-D positions form a square: num_queries=1, 4, 9, 16, ...; got {num_queries}"
            )
        self.grid: Grid = (side, side)
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_queries, dim), std=STD))
        self.shrink = nn.Identity() if in_dim == dim else nn.Linear(in_dim, dim, bias=False)
        self.queries_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.memory_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = CrossAttention(dim, num_heads=num_heads or max(1, dim // 128))
        self.apply(_draw_linear)

    def forward(
        self,
        tokens: Float[Tensor, "M N E"],
        mask: Bool[Tensor, "M N"] | None = None,
        grid: Grid | None = None,
    ) -> Float[Tensor, "M Q D"]:
        """Read tokens of a raster of `grid`; None = no positions. `mask` is True where a token is real."""
        memory = self.memory_norm(self.shrink(tokens))
        queries = self.queries_norm(self.queries)
        if grid is None:
            return self.attention(queries.expand(len(tokens), -1, -1), memory, mask)
        table = self._table(memory)
        queries = (queries + table).expand(len(tokens), -1, -1)
        return self.attention(queries, memory, mask, resize_table(table, self.grid, grid))

    def _table(self, like: Tensor) -> Float[Tensor, "Q D"]:
        """Places of the queries, the column in the first half of the width (the order of MAE's code)."""
        dim = self.queries.shape[1]
        return sincos_2d(self.grid, dim, device=like.device).roll(dim // 2, dims=1).to(like.dtype)


def _draw_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
