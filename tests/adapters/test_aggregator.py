from dataclasses import replace

import pytest
import torch

from mmunify.adapters.aggregator import AggregatorAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import random_features, randomize
from mmunify.types import Layout

TINY = {"layers": [3, 1], "num_heads": 2, "hidden_dim": 12, "project_dim": 10}


def example(folder):
    return dict(TINY)


def features_of(adapter, grid=(3, 4)):
    return random_features(8, grid, needs=adapter.needs)


def test_it_needs_its_layers():
    assert AggregatorAdapter(8, 16, **TINY).needs == {"layers:3", "layers:1"}


def test_it_starts_from_the_normed_tokens():
    adapter = AggregatorAdapter(8, 16, **TINY)
    features = features_of(adapter)
    start = features.tokens
    for block in adapter.blocks:
        for norm in (block.attention_norm, block.cross_norm, block.feed_forward_norm):
            start = norm(start)
    wanted = adapter.project(adapter.norm(start))
    torch.testing.assert_close(adapter(features, Context()).tokens, wanted)


@pytest.mark.parametrize("index", [3, 1])
def test_every_layer_reaches_the_answer(index):
    adapter = randomize(AggregatorAdapter(8, 16, **TINY)).eval()
    features = features_of(adapter)
    changed = replace(features, layers={**features.layers, index: features.layers[index] + 1})
    moved = adapter(changed, Context()).tokens - adapter(features, Context()).tokens
    assert moved.abs().max() > 1e-3


def test_a_layer_may_hold_a_class_token_more():
    adapter = randomize(AggregatorAdapter(8, 16, **TINY))
    features = features_of(adapter)
    longer = {index: torch.cat([states[:, :1], states], dim=1) for index, states in features.layers.items()}
    mask = torch.arange(12).expand(2, 12) < 9
    embeds = adapter(replace(features, layers=longer, mask=mask), Context())
    assert embeds.tokens.isfinite().all()
    assert embeds.mask is mask


def test_masked_tokens_are_as_good_as_absent():
    adapter = randomize(AggregatorAdapter(8, 16, **TINY))
    features = features_of(adapter)
    mask = torch.arange(12).expand(2, 12) < 8
    embeds = adapter(replace(features, mask=mask), Context()).tokens[:, :8]
    short = replace(features, tokens=features.tokens[:, :8], layers={i: s[:, :8] for i, s in features.layers.items()})
    torch.testing.assert_close(embeds, adapter(short, Context()).tokens, atol=1e-5, rtol=0)


def test_slots_stay_as_they_are():
    layout = Layout.of(257)
    assert AggregatorAdapter(8, 16, **TINY).layout(layout) is layout


def test_absent_layers_are_named():
    adapter = AggregatorAdapter(8, 16, **TINY)
    features = replace(features_of(adapter), layers={1: torch.zeros(2, 12, 8)})
    with pytest.raises(DataError, match=r"reads layers \[3, 1\] and its features hold \[1\]: write `layers: \[3, 1\]`"):
        adapter(features, Context())


def test_no_layers_are_refused():
    with pytest.raises(UserError, match=r"at least one layer of its encoder; got layers=\[\]"):
        AggregatorAdapter(8, 16, layers=[])


def test_sizes_of_lion():
    """Two BERT blocks of width 1408 with a feed-forward of 3072, then 1408 -> 5632 -> d."""
    with torch.device("meta"):
        adapter = AggregatorAdapter(1408, 2048, layers=[28, 18], num_heads=16, hidden_dim=3072)
    attention = 4 * (1408 * 1408 + 1408) + 2 * 1408
    block = 2 * attention + 1408 * 3072 + 3072 + 3072 * 1408 + 1408 + 2 * 1408
    assert sum(p.numel() for p in adapter.blocks.parameters()) == 2 * block
    assert [adapter.project[i].out_features for i in (0, 2)] == [5632, 2048]
