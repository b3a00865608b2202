import pytest

from mmunify.parts import Adapter
from mmunify.registry import ADAPTERS
from mmunify.testing import check_adapter


@pytest.mark.parametrize("name", ADAPTERS.names())
@pytest.mark.parametrize("grid", [(3, 4), (4, 4)])
def test_contract(name, grid, build_example):
    adapter, _ = build_example(ADAPTERS, name, in_dim=24, out_dim=32)
    assert isinstance(adapter, Adapter)
    check_adapter(adapter, in_dim=24, out_dim=32, grid=grid)
