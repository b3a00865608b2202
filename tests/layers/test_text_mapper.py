import torch
from torch import nn

from mmunify.layers.text_mapper import TextMapper


def test_parameters_of_gill():
    """Its transformer has 29.43 M parameters; with OPT-6.7B's width in and Stable Diffusion's 77 x 768 out."""
    with torch.device("meta"):
        mapper = TextMapper(4096, 768)
    inside = sum(p.numel() for stack in (mapper.encoder, mapper.decoder) for p in stack.parameters())
    assert round(inside / 1e6, 2) == 29.43
    assert sum(p.numel() for p in mapper.parameters()) - inside == (4097 + 77) * 512 + 513 * 768


def test_it_is_torchs_transformer():
    torch.manual_seed(0)
    mapper = TextMapper(6, 10, num_queries=5, dim=16, depth=2, num_heads=2, hidden_dim=24)
    theirs = nn.Transformer(16, 2, 2, 2, 24, dropout=0.0, norm_first=True, batch_first=True)
    theirs.encoder.load_state_dict(mapper.encoder.state_dict())
    theirs.decoder.load_state_dict(mapper.decoder.state_dict())
    states = torch.randn(3, 4, 6)
    wanted = mapper.project(theirs(mapper.shrink(states), mapper.queries.expand(3, -1, -1)))
    torch.testing.assert_close(mapper(states), wanted)
    assert mapper(states).shape == (3, 5, 10)


def test_layers_and_outputs_start_apart():
    torch.manual_seed(0)
    mapper = TextMapper(6, 10, num_queries=5, dim=16, depth=2, num_heads=2, hidden_dim=24)
    first, second = (layer.linear1.weight for layer in mapper.encoder.layers)
    assert (first - second).abs().max() > 0.1
    assert mapper(torch.randn(1, 4, 6)).std(dim=1).min() > 0.01


def test_masked_states_are_as_good_as_absent():
    torch.manual_seed(0)
    mapper = TextMapper(6, 10, num_queries=5, dim=16, depth=2, num_heads=2, hidden_dim=24)
    states = torch.randn(2, 4, 6)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    masked = mapper(states, mask)
    torch.testing.assert_close(masked[:1], mapper(states[:1, :2]))
    assert masked.isfinite().all()


def test_no_items():
    mapper = TextMapper(6, 10, num_queries=5, dim=16, depth=1, num_heads=2, hidden_dim=24)
    assert mapper(torch.zeros(0, 4, 6), torch.zeros(0, 4, dtype=torch.bool)).shape == (0, 5, 10)
