import pytest
import torch

from mmunify.adapters.average_pool import AveragePoolAdapter
from mmunify.adapters.linear import LinearAdapter
from mmunify.adapters.mlp import MLPAdapter
from mmunify.adapters.qformer import QFormerAdapter
from mmunify.adapters.series import SeriesAdapter
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.registry import ADAPTERS
from mmunify.testing import random_features
from mmunify.types import Features, Layout


def example(folder):
    first = {"name": "qformer", "dim": 16, "depth": 1, "num_heads": 2, "num_queries": 3, "out_dim": None}
    return {"parts": [first, {"name": "mlp", "in_dim": 16}]}


def test_the_second_reads_what_the_first_made():
    qformer, mlp = QFormerAdapter(8, None, dim=16, depth=1, num_heads=2, num_queries=3), MLPAdapter(16, 6)
    features = random_features(8, (2, 2))
    embeds = SeriesAdapter([qformer, mlp])(features, Context())
    between = qformer(features, Context()).tokens
    assert between.shape == (2, 3, 16)
    torch.testing.assert_close(embeds.tokens, mlp.layers(between))


def test_layouts_follow_each_other():
    series = SeriesAdapter([AveragePoolAdapter(8, 8, kernel=2), AveragePoolAdapter(8, 8, kernel=3)])
    assert series.layout(Layout.of(144, (12, 12))) == Layout.of(4, (2, 2))
    assert series(random_features(8, (12, 12)), Context()).tokens.shape == (2, 4, 8)


def test_rasters_and_masks_are_handed_on():
    series = SeriesAdapter([AveragePoolAdapter(8, 8, kernel=2), AveragePoolAdapter(8, 8, kernel=2)])
    mask = torch.ones(1, 48, dtype=torch.bool)
    mask[:, 32:] = False
    embeds = series(Features(tokens=torch.randn(1, 48, 8), grid=(4, 4), mask=mask), Context())
    assert embeds.mask.tolist() == [[True, True, False]]


def test_needs_are_those_of_all_parts():
    first, second = LinearAdapter(8, 8), LinearAdapter(8, 8)
    first.needs, second.needs = frozenset({"pooled"}), frozenset({"layers:3"})
    assert SeriesAdapter([first, second]).needs == {"pooled", "layers:3"}


def test_a_node_writes_the_widths_between():
    adapter = ADAPTERS.build({"name": "series", **example(None)}, in_dim=8, out_dim=6)
    assert adapter(random_features(8, (2, 2)), Context()).tokens.shape == (2, 3, 6)


def test_no_parts_are_refused():
    with pytest.raises(UserError, match=r"at least one adapter; got parts=\[\]"):
        SeriesAdapter([])
