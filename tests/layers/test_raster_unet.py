import pytest
import torch

from mmunify.layers.raster_unet import NearRasters, PlacedAttention, RasterUNet, TimedBlock, squared_distances

DIMS = [32, 64]


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def unet(**arguments):
    torch.manual_seed(0)
    network = RasterUNet(**{"channels": 12, "beside": 4, "source": 0, "dims": DIMS, **arguments})
    torch.nn.init.normal_(network.conv_out[-1].weight, std=0.1)  # else it answers zero, whatever it is told
    return network


KNOWN = {"places": draw(2, 4, 8, 8)}
TIME = torch.tensor([100.0, 900.0])


def test_an_untrained_block_is_the_identity():
    block = TimedBlock(16, 16, 8)
    raster = draw(2, 16, 4, 4)
    assert torch.equal(block(raster, draw(2, 8)), raster)
    assert TimedBlock(16, 24)(raster).shape == (2, 24, 4, 4)


def test_time_scales_and_shifts():
    block = TimedBlock(16, 16, 8)
    torch.nn.init.normal_(block.second[-1].weight)
    raster = draw(2, 16, 4, 4)
    assert not torch.allclose(block(raster, torch.zeros(2, 8)), block(raster, torch.ones(2, 8)))


def test_distances():
    """Two features of a row of four cells each: middles at 0.25, 0.75, 1.25, 1.75 and at 0.5, 1.5."""
    near = squared_distances((1, 4), (1, 2), draw(1))
    torch.testing.assert_close(near, torch.tensor([[1, 25], [1, 9], [9, 1], [25, 1]]) / 16)
    assert squared_distances((8, 8), (4, 4), draw(1)).shape == (64, 16)


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    attention = PlacedAttention(64, 24).double()
    cells, memory = draw(2, 64, 4, 4).double(), draw(2, 4, 24).double()
    query = attention.query(attention.norm(cells)).flatten(2).transpose(1, 2)
    heads = []
    for head in range(2):
        part = slice(32 * head, 32 * (head + 1))
        scores = query[..., part] @ attention.key(memory)[..., part].transpose(1, 2) / 32**0.5
        scores = scores - attention.nearness[head].exp() * squared_distances((4, 4), (2, 2), cells)
        heads.append(scores.softmax(-1) @ attention.value(memory)[..., part])
    found = torch.cat(heads, dim=2).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(attention(cells, memory), cells + attention.output(found))


def test_a_head_that_looks_near_finds_its_own_feature():
    attention = PlacedAttention(32, 8)
    with torch.no_grad():
        attention.nearness.fill_(5.0)
    memory = draw(1, 4, 8)
    changed = memory.clone()
    changed[:, 3] += 1
    moved = (attention(draw(1, 32, 4, 4), memory) - attention(draw(1, 32, 4, 4), changed)).abs().sum((0, 1))
    assert (moved[2:, 2:] > 1e-3).all()
    assert moved[:2].max() < 1e-6


@pytest.mark.parametrize("dims", [[32], [32, 64], [32, 32, 64]])
def test_shapes(dims):
    network = unet(dims=dims, states_dim=24)
    known = {**KNOWN, "states": draw(2, 16, 24)}
    assert network(draw(2, 12, 8, 8), TIME, known).shape == (2, 12, 8, 8)


@pytest.mark.parametrize("name", ["near0", "near1", "states", "places"])
def test_what_it_is_told_counts(name):
    network = unet(states_dim=24)
    for attention in [*network.look_down, *network.look_up]:
        torch.nn.init.normal_(attention.output.weight)
    known = {**KNOWN, "states": draw(2, 16, 24), "near0": draw(2, 32, 8, 8), "near1": draw(2, 64, 4, 4)}
    sample = draw(2, 12, 8, 8)
    changed = network(sample, TIME, {**known, name: known[name] + draw(*known[name].shape)})
    assert (changed - network(sample, TIME, known)).abs().max() > 1e-4


def test_a_source_changes_nothing_at_first():
    network, sample = unet(source=12), draw(2, 12, 8, 8)
    known = {**KNOWN, "source": draw(2, 12, 8, 8)}
    first = network(sample, TIME, known)
    assert torch.equal(first, network(sample, TIME, {**known, "source": torch.zeros(2, 12, 8, 8)}))
    first.sum().backward()
    assert network.source_in.weight.grad.abs().max() > 0


def test_what_is_kept_is_a_second_answer_and_zero_at_first():
    network, plain, sample = unet(source=12, keeps=True), unet(source=12), draw(2, 12, 8, 8)
    plain.load_state_dict({name: x for name, x in network.state_dict().items() if "source_out" not in name})
    known = {**KNOWN, "source": draw(2, 12, 8, 8)}
    made = network(sample, TIME, known)
    assert made.shape == (2, 24, 8, 8)
    assert torch.equal(made[:, :12], plain(sample, TIME, known))
    assert made[:, 12:].abs().max() == 0
    made.sum().backward()
    assert network.source_out[-1].weight.grad.abs().max() > 0


@pytest.mark.parametrize("rows", [4, 8, 16, 3])
def test_rasters_fit_their_levels(rows):
    levels = NearRasters(24, DIMS, [8, 4], depth=1)(draw(2, 24, rows, rows))
    assert [tuple(level.shape) for level in levels] == [(2, 32, 8, 8), (2, 64, 4, 4)]
