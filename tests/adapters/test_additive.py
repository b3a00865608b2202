import pytest
import torch

from mmunify.adapters.additive import AdditiveAdapter
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.testing import check_adapter
from mmunify.types import Features
from tests.adapters.rasters import check_own_raster


def example(folder):
    return {"grid": 3, "dim": 16}


def visible(grid: int = 3) -> AdditiveAdapter:
    """One whose paintings are as strong as the ground."""
    adapter = AdditiveAdapter(6, 8, grid=grid, dim=16).double()
    with torch.no_grad():
        for tensor in (adapter.paint, adapter.ground):
            tensor.normal_()
    return adapter


def painted(adapter: AdditiveAdapter, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return adapter(Features(tokens=tokens, mask=mask), Context()).tokens


@pytest.mark.parametrize("grid", [(3, 4), (1, 5)])
def test_contract(grid):
    check_adapter(AdditiveAdapter(6, 8, grid=3, dim=16), 6, 8, grid)


def test_the_answer_is_the_sum_of_what_each_token_paints():
    adapter, tokens = visible(), torch.randn(2, 4, 6, dtype=torch.float64)
    ground = adapter.ground
    alone = sum(painted(adapter, tokens[:, [n]]) - ground for n in range(4))
    torch.testing.assert_close(painted(adapter, tokens), alone + ground)


def test_the_order_of_the_tokens_says_nothing():
    adapter, tokens = visible(), torch.randn(2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(painted(adapter, tokens.flip(1)), painted(adapter, tokens))


def test_masked_tokens_paint_nothing():
    adapter, tokens = visible(), torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    made = painted(adapter, tokens, mask)
    torch.testing.assert_close(made[0], painted(adapter, tokens[:1, [0, 1, 3]])[0])
    torch.testing.assert_close(made[1], adapter.ground.detach())


def test_its_raster_is_its_own_whatever_it_reads():
    check_own_raster(visible(grid=2))


@pytest.mark.parametrize("sizes", [{"grid": 0}, {"dim": 0}])
def test_sizes_are_at_least_one(sizes):
    with pytest.raises(UserError, match="at least 1"):
        AdditiveAdapter(6, 8, **sizes)
