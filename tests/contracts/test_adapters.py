from dataclasses import replace

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.testing import check_adapter, random_features
from mmunify.types import Layout, Run

DIMS = {"in_dim": 24, "out_dim": 32}
GRID = (3, 4)


def tiles(num: int) -> Layout:
    """A layout of tiles of GRID with delimiters, as dynamic resolution writes them."""
    tile = (Run(token="<patch>"), Run(slots=12, grid=GRID), Run(token="</patch>"))
    return Layout(runs=tile * num)


def tiled_features(adapter: Adapter, num: int = 3):
    """Two items; the second one has a tile less, filled up with masked tokens."""
    features = random_features(24, (num * GRID[0], GRID[1]), needs=adapter.needs)
    mask = torch.ones(2, num * 12, dtype=torch.bool)
    mask[1, -12:] = False
    return replace(features, grid=GRID, mask=mask)


@pytest.mark.parametrize("name", ADAPTERS.names())
@pytest.mark.parametrize("grid", [(3, 4), (4, 4)])
def test_contract(name, grid, build_example):
    adapter, _ = build_example(ADAPTERS, name, **DIMS)
    assert isinstance(adapter, Adapter)
    check_adapter(adapter, **DIMS, grid=grid)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_no_items(name, build_example):
    adapter, _ = build_example(ADAPTERS, name, **DIMS)
    features = random_features(24, GRID, num_items=0, needs=adapter.needs)
    slots = adapter.layout(Layout.of(12, GRID)).num_slots
    assert adapter(features, Context()).tokens.shape == (0, slots, 32)
    masked = replace(features, mask=torch.zeros(0, 12, dtype=torch.bool))
    assert adapter(masked, Context()).tokens.shape == (0, slots, 32)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_every_item_fills_the_slots_of_its_own_tiles(name, build_example):
    adapter, _ = build_example(ADAPTERS, name, **DIMS)
    features = tiled_features(adapter)
    embeds = adapter.eval()(features, Context())
    real = torch.ones(embeds.tokens.shape[:2], dtype=torch.bool) if embeds.mask is None else embeds.mask
    assert real.sum(1).tolist() == [adapter.layout(tiles(3)).num_slots, adapter.layout(tiles(2)).num_slots]
    assert embeds.tokens.isfinite().all()


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_a_missing_tile_is_as_good_as_absent(name, build_example):
    adapter, _ = build_example(ADAPTERS, name, **DIMS)
    features = tiled_features(adapter)
    embeds = adapter.eval()(features, Context())
    layers = {index: states[1:, :24] for index, states in features.layers.items()}
    pooled = None if features.pooled is None else features.pooled[1:]
    alone = replace(features, tokens=features.tokens[1:, :24], mask=None, layers=layers, pooled=pooled)
    wanted = adapter(alone, Context()).tokens[0]
    real = slice(None) if embeds.mask is None else embeds.mask[1]
    torch.testing.assert_close(embeds.tokens[1][real], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_the_same_seed_gives_the_same_part_and_its_weights_fit_another(name, build_example):
    parts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        parts.append(build_example(ADAPTERS, name, **DIMS)[0].eval())
    features = random_features(24, GRID, needs=parts[0].needs)
    first, second, other = (part(features, Context()).tokens for part in parts)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    parts[2].load_state_dict(parts[0].state_dict())
    assert torch.equal(first, parts[2](features, Context()).tokens)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_the_answer_has_the_type_of_the_weights(name, build_example):
    adapter, _ = build_example(ADAPTERS, name, **DIMS)
    features = tiled_features(adapter)
    features = replace(replace(features, mask=None).to(torch.bfloat16), mask=features.mask)
    assert adapter.to(torch.bfloat16)(features, Context()).tokens.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_it_learns_in_front_of_a_frozen_backbone(name, nodes, build_example, make_sample, tmp_path):
    _, examples = build_example(ADAPTERS, name, **DIMS)
    node = {"name": name, **examples.example(tmp_path)}
    encoder = {**nodes["encoders"]["image"], "layers": node.get("layers", [])}
    model = compose(**{**nodes, "encoders": {"image": encoder}, "adapters": {"image": node}}, weights={"image": 0})
    batch = Processor(model.spec(), model.backbone.tokenizer, model.tokens)(
        [make_sample("first", 2), make_sample("b", 1)]
    )
    for side in (model.encoders, model.backbone, model.heads):
        side.requires_grad_(False)
    optimiser = torch.optim.AdamW(model.adapters.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = model.train()(batch).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[10:]) < losses[0] - 0.01, losses
