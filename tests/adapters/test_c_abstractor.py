import pytest
import torch
from torch import nn

from mmunify.adapters.c_abstractor import CAbstractorAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_adapter, random_features
from mmunify.types import Features, Layout, Run

TINY = {"num_queries": 4, "dim": 8, "depth": 1}


def example(folder):
    return {**TINY, "positions": [4, 4], "norm": True}


def test_layout_is_a_square_per_tile():
    adapter = CAbstractorAdapter(8, 16, **TINY)
    assert adapter.layout(Layout.of(576, (24, 24))) == Layout.of(4, (2, 2))
    tiles = Layout(runs=(Run(slots=24, grid=(3, 4)), Run(token="<newline>")))
    assert adapter.layout(tiles).runs == (Run(slots=8, grid=(2, 2)), Run(token="<newline>"))


def test_sixteen_to_twelve_has_uneven_windows():
    adapter = CAbstractorAdapter(8, 16, num_queries=144, dim=8, depth=1)
    assert adapter(random_features(8, (16, 16)), Context()).tokens.shape == (2, 144, 16)


def test_the_body_of_honeybee_has_the_measured_size():
    with torch.device("meta"):
        adapter = CAbstractorAdapter(1024, 4096)
    assert round(sum(p.numel() for p in adapter.net.parameters()) / 1e6, 2) == 15.83
    names = set(adapter.state_dict())
    assert {"net.0.b1.conv2.conv.weight", "net.2.b3.se.fc1.weight", "readout.0.weight", "readout.2.weight"} <= names
    assert adapter.net[0].b1.conv2.conv.weight.shape == (1024, 1, 3, 3)
    assert isinstance(adapter.readout[1], nn.SiLU)


def test_places_are_kept():
    """A change in a corner changes that corner of the pooled raster most."""
    torch.manual_seed(0)
    adapter = CAbstractorAdapter(8, 16, **TINY).eval()
    tokens = torch.randn(1, 144, 8)
    changed = tokens.clone()
    changed.view(1, 12, 12, 8)[:, :3, 9:] += torch.randn(3, 3, 8)
    run = lambda x: adapter.net[:2](x.transpose(1, 2).unflatten(2, (12, 12))).flatten(2)  # noqa: E731
    moved = (run(tokens) - run(changed)).abs().sum(1)[0]
    assert moved.argmax() == 1


def test_positions_are_resized_to_the_raster():
    torch.manual_seed(0)
    adapter = CAbstractorAdapter(8, 16, **TINY, positions=[4, 4])
    plain = CAbstractorAdapter(8, 16, **TINY)
    plain.load_state_dict({k: v for k, v in adapter.state_dict().items() if k != "positions"})
    features = random_features(8, (4, 4))
    placed = Features(tokens=features.tokens + adapter.positions, grid=(4, 4))
    torch.testing.assert_close(adapter(features, Context()).tokens, plain(placed, Context()).tokens)
    check_adapter(adapter, 8, 16, grid=(6, 5))


def test_the_encoders_answer_is_left_alone():
    features = random_features(8, (4, 4))
    before = features.tokens.clone()
    CAbstractorAdapter(8, 16, **TINY, positions=[4, 4])(features, Context())
    assert torch.equal(features.tokens, before)


def test_a_class_token_in_front_is_refused():
    with pytest.raises(DataError, match="c_abstractor needs features with a grid; 17 tokens"):
        CAbstractorAdapter(8, 16, **TINY)(Features(tokens=torch.randn(1, 17, 8)), Context())


@pytest.mark.parametrize("wrong", [{"num_queries": 5}, {"num_queries": 0}, {"depth": 0}])
def test_counts_that_do_not_fit(wrong):
    with pytest.raises(UserError, match="a square num_queries .* and a depth of at least 1"):
        CAbstractorAdapter(8, 16, **{**TINY, **wrong})


@pytest.mark.parametrize("wrong", [[4], [4, 0], [1, 2, 3]])
def test_positions_are_two_numbers(wrong):
    with pytest.raises(UserError, match="rows, columns"):
        CAbstractorAdapter(8, 16, **TINY, positions=wrong)
