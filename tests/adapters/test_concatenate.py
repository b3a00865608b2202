import torch

from mmunify.adapters.concatenate import ConcatenateAdapter
from mmunify.adapters.linear import LinearAdapter
from mmunify.adapters.qformer import QFormerAdapter
from mmunify.parts import Context
from mmunify.registry import ADAPTERS
from mmunify.testing import random_features
from mmunify.types import Features, Layout, Run


def example(folder):
    return {"parts": [{"name": "qformer", "dim": 16, "depth": 1, "num_heads": 2, "num_queries": 3}, {"name": "linear"}]}


def build():
    qformer = QFormerAdapter(8, 6, dim=16, depth=1, num_heads=2, num_queries=3)
    return ConcatenateAdapter([qformer, LinearAdapter(8, 6)]).eval()


def test_parts_follow_each_other():
    adapter, features = build(), random_features(8, (2, 2))
    embeds = adapter(features, Context())
    wanted = [part(features, Context()).tokens for part in adapter.parts]
    assert torch.equal(embeds.tokens, torch.cat(wanted, dim=1))
    assert embeds.mask is None


def test_layouts_follow_each_other():
    assert build().layout(Layout.of(4, (2, 2))) == Layout(runs=(Run(slots=3), Run(slots=4, grid=(2, 2))))


def test_queries_are_real_beside_masked_tokens():
    mask = torch.tensor([[True, False]])
    embeds = build()(Features(tokens=torch.randn(1, 2, 8), mask=mask), Context())
    assert embeds.mask.tolist() == [[True, True, True, True, False]]


def test_needs_are_those_of_all_parts():
    first, second = LinearAdapter(8, 6), LinearAdapter(8, 6)
    first.needs, second.needs = frozenset({"pooled"}), frozenset({"layers:3"})
    assert ConcatenateAdapter([first, second]).needs == {"pooled", "layers:3"}


def test_a_node_gives_every_part_its_widths():
    adapter = ADAPTERS.build({"name": "concatenate", **example(None)}, in_dim=8, out_dim=6)
    assert adapter(random_features(8, (2, 2)), Context()).tokens.shape == (2, 7, 6)
