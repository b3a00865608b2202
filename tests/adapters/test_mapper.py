import pytest
import torch

from mmunify.adapters.mapper import MapperAdapter
from mmunify.parts import Context
from mmunify.types import Features, Layout

TINY = {"num_queries": 5, "dim": 16, "depth": 2, "num_heads": 2}


def example(folder):
    return TINY


def test_parameters_of_gill():
    """OPT-6.7B's states to Stable Diffusion's 77 x 768: 29.43 M in the transformer, about 32 M in all."""
    with torch.device("meta"):
        adapter = MapperAdapter(4096, 768)
    inside = [p.numel() for n, p in adapter.named_parameters() if "encoder" in n or "decoder" in n]
    assert round(sum(inside) / 1e6, 2) == 29.43
    assert round(sum(p.numel() for p in adapter.parameters()) / 1e6) == 32


def test_it_is_torchs_transformer_of_learned_queries():
    torch.manual_seed(0)
    adapter = MapperAdapter(8, 6, **TINY).eval()
    theirs = torch.nn.Transformer(16, 2, 2, 2, 64, dropout=0.0, batch_first=True, norm_first=True).eval()
    theirs.encoder.load_state_dict(adapter.mapper.encoder.state_dict())
    theirs.decoder.load_state_dict(adapter.mapper.decoder.state_dict())
    states = torch.randn(3, 4, 8)
    queries = adapter.mapper.queries.expand(3, -1, -1)
    wanted = adapter.mapper.project(theirs(adapter.mapper.shrink(states), queries))
    torch.testing.assert_close(adapter(Features(tokens=states), Context()).tokens, wanted)


def test_an_item_without_any_real_token_is_finite_and_leaves_the_others_alone():
    torch.manual_seed(0)
    adapter = MapperAdapter(8, 6, **TINY).eval()
    states, mask = torch.randn(2, 4, 8), torch.tensor([[True] * 4, [False] * 4])
    made = adapter(Features(tokens=states, mask=mask), Context()).tokens
    assert bool(made.isfinite().all())
    torch.testing.assert_close(made[:1], adapter(Features(tokens=states[:1]), Context()).tokens)


@pytest.mark.parametrize("slots", [1, 77])
def test_it_always_makes_as_many_tokens_as_queries(slots):
    assert MapperAdapter(8, 6, **TINY).layout(Layout.of(slots)).num_slots == 5
