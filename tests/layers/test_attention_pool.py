import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmunify.errors import UserError
from mmunify.layers.attention_pool import AttentionPool
from mmunify.testing import randomize


def mae_table(side: int, dim: int) -> torch.Tensor:
    """2-D sine-cosine positions as MAE's public code lays them out: column first, sines before cosines."""
    frequencies = 1 / 10000 ** (torch.arange(dim // 4) / (dim / 4))
    column, row = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def reference(pool: AttentionPool, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The same by torch's own attention."""
    dim, side = pool.queries.shape[1], pool.grid[0]
    attention = nn.MultiheadAttention(dim, pool.attention.num_heads, batch_first=True)
    pieces = (pool.attention.query, pool.attention.key, pool.attention.value)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([piece.weight for piece in pieces]))
        attention.in_proj_bias.copy_(torch.cat([piece.bias for piece in pieces]))
        attention.out_proj.load_state_dict(pool.attention.output.state_dict())
    table = mae_table(side, dim)
    picture = table.T.reshape(1, dim, side, side)
    keys = F.interpolate(picture, size=grid, mode="bicubic", align_corners=False).flatten(2)[0].T
    queries = (F.layer_norm(pool.queries, (dim,), pool.queries_norm.weight, pool.queries_norm.bias) + table)[None]
    memory = pool.memory_norm(pool.shrink(tokens))
    return attention(queries.expand(len(tokens), -1, -1), memory + keys, memory)[0]


@pytest.mark.parametrize("grid", [(2, 2), (4, 4), (3, 5)])
def test_equals_torch_attention_with_maes_positions(grid):
    torch.manual_seed(0)
    pool = randomize(AttentionPool(10, 16, num_queries=4, num_heads=2))
    tokens = torch.randn(3, grid[0] * grid[1], 10)
    answer = pool(tokens, None, grid)
    assert answer.std() > 0.1
    torch.testing.assert_close(answer, reference(pool, tokens, grid), atol=1e-5, rtol=0)


def test_the_same_width_needs_no_linear_before():
    assert isinstance(AttentionPool(16, 16, 4, 2).shrink, nn.Identity)


def test_without_positions_tokens_are_a_set():
    torch.manual_seed(0)
    pool, tokens = randomize(AttentionPool(10, 16, 4, 2)), torch.randn(2, 6, 10)
    torch.testing.assert_close(pool(tokens), pool(tokens.flip(1)), atol=1e-5, rtol=0)
    assert (pool(tokens, None, (2, 3)) - pool(tokens.flip(1), None, (2, 3))).abs().max() > 1e-2


@pytest.mark.parametrize(("in_dim", "dim", "millions"), [(4096, 5120, 126.2), (5120, 4096, 88.4)])
def test_sizes_of_seed_x(in_dim, dim, millions):
    """Its input and its output resampler."""
    with torch.device("meta"):
        pool = AttentionPool(in_dim, dim, num_queries=64, num_heads=32)
    assert round(sum(p.numel() for p in pool.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("number", [0, 5, -4])
def test_queries_that_are_no_square(number):
    with pytest.raises(UserError, match=f"form a square: .* got {number}"):
        AttentionPool(10, 16, number)
