import pytest
import torch

from mmunify.adapters.sprites import GROUND_GAIN, SpritesAdapter
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.testing import check_adapter
from mmunify.types import Features
from tests.adapters.rasters import check_own_raster


def example(folder):
    return {"grid": 3, "side": 3, "dim": 16}


def visible(grid: int = 3) -> SpritesAdapter:
    """One whose paintings are as strong as the ground."""
    adapter = SpritesAdapter(6, 8, grid=grid, side=3, dim=16).double()
    with torch.no_grad():
        for tensor in (adapter.paint, adapter.ground):
            tensor.normal_()
    return adapter


def laid_at(adapter: SpritesAdapter, x: float, y: float, token: torch.Tensor) -> torch.Tensor:
    """What one token paints beside the ground, with its middle at (x, y), in cells: (G, G, D)."""
    with torch.no_grad():
        adapter.place.weight.zero_()
        adapter.place.bias.copy_((torch.tensor([x, y], dtype=torch.float64) / adapter.grid).logit())
    return (painted(adapter, token[None, None]) - GROUND_GAIN * adapter.ground).reshape(adapter.grid, adapter.grid, -1)


def painted(adapter: SpritesAdapter, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return adapter(Features(tokens=tokens, mask=mask), Context()).tokens


@pytest.mark.parametrize("grid", [(3, 4), (1, 5)])
def test_contract(grid):
    check_adapter(SpritesAdapter(6, 8, grid=3, side=3, dim=16), 6, 8, grid)


def test_a_sprite_is_what_was_painted_at_the_place_that_was_said():
    adapter, token = visible(grid=8), torch.randn(6, dtype=torch.float64)
    raster = laid_at(adapter, 2.5, 4.5, token)
    sprite = (adapter.read(token) @ adapter.paint).reshape(3, 3, 8)
    torch.testing.assert_close(raster[3:6, 1:4], sprite, atol=1e-5, rtol=1e-5)
    raster[3:6, 1:4] = 0
    assert raster.abs().max() < 1e-5


def test_between_the_cells_it_is_the_mean_of_both_places():
    adapter, token = visible(grid=8), torch.randn(6, dtype=torch.float64)
    left, right = laid_at(adapter, 3.5, 4.5, token), laid_at(adapter, 4.5, 4.5, token)
    torch.testing.assert_close(laid_at(adapter, 4.0, 4.5, token), (left + right) / 2, atol=1e-5, rtol=1e-5)


def test_of_a_sprite_beyond_the_edge_the_rest_is_seen():
    adapter, token = visible(grid=8), torch.randn(6, dtype=torch.float64)
    inside, edge = laid_at(adapter, 1.5, 4.5, token), laid_at(adapter, 0.5, 4.5, token)
    torch.testing.assert_close(edge[:, :-1], inside[:, 1:], atol=1e-5, rtol=1e-5)


def test_where_a_sprite_lies_is_learned():
    adapter, token = visible(grid=8), torch.randn(6, dtype=torch.float64)
    wanted = laid_at(adapter, 4.5, 4.5, token).detach()
    (laid_at(adapter, 4.0, 4.5, token) - wanted).square().mean().backward()
    slope = adapter.place.bias.grad
    assert slope is not None and slope[0] < 0  # further to the right


def test_the_answer_is_the_sum_of_what_each_token_paints():
    adapter, tokens = visible(), torch.randn(2, 4, 6, dtype=torch.float64)
    ground = GROUND_GAIN * adapter.ground
    alone = sum(painted(adapter, tokens[:, [n]]) - ground for n in range(4))
    torch.testing.assert_close(painted(adapter, tokens), alone + ground)


def test_masked_tokens_paint_nothing():
    adapter, tokens = visible(), torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    made = painted(adapter, tokens, mask)
    torch.testing.assert_close(made[0], painted(adapter, tokens[:1, [0, 1, 3]])[0])
    torch.testing.assert_close(made[1], (GROUND_GAIN * adapter.ground).detach())


def test_its_raster_is_its_own_whatever_it_reads():
    check_own_raster(visible(grid=2))


@pytest.mark.parametrize("sizes", [{"grid": 0}, {"side": 0}, {"dim": 0}])
def test_sizes_are_at_least_one(sizes):
    with pytest.raises(UserError, match="at least 1"):
        SpritesAdapter(6, 8, **sizes)
