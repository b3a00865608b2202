import pytest
import torch
from torch.nn import functional as F

from mmunify.adapters.average_pool import AveragePoolAdapter
from mmunify.errors import DataError, UserError
from mmunify.parts import Context
from mmunify.testing import check_adapter, random_features
from mmunify.types import Features, Layout, Run

MODES = ["raster", "sequence", "frames", "all"]


def example(folder):
    return {"over": "raster", "kernel": 2}


def transparent(dim: int, **arguments) -> AveragePoolAdapter:
    """One whose projection changes nothing."""
    adapter = AveragePoolAdapter(dim, dim, **arguments)
    with torch.no_grad():
        adapter.project[0].weight.copy_(torch.eye(dim))
        adapter.project[0].bias.zero_()
    return adapter


@pytest.mark.parametrize("over", MODES)
@pytest.mark.parametrize("grid", [(3, 4), (4, 4)])
def test_contract_of_every_mode(over, grid):
    check_adapter(AveragePoolAdapter(6, 8, over=over, kernel=3, depth=2), 6, 8, grid)


def test_sequence_is_the_target_pooling_of_seed_x():
    """256 -> 64 in raster order: every slot is the mean of four neighbours in a row."""
    features = random_features(8, (16, 16))
    adapter = transparent(8, over="sequence", kernel=4)
    wanted = F.avg_pool1d(features.tokens.transpose(1, 2), kernel_size=4, stride=4).transpose(1, 2)
    torch.testing.assert_close(adapter(features, Context()).tokens, wanted)
    assert adapter.layout(Layout.of(256, (16, 16))) == Layout.of(64, (16, 4))


def test_raster_is_the_pooling_of_emu2():
    """32 x 32 -> 8 x 8."""
    features = random_features(6, (32, 32))
    adapter = transparent(6, kernel=4)
    wanted = F.avg_pool2d(features.tokens.transpose(1, 2).unflatten(2, (32, 32)), 4, 4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(adapter(features, Context()).tokens, wanted)
    assert adapter.layout(Layout.of(1024, (32, 32))) == Layout.of(64, (8, 8))


def test_frames_are_averaged_place_by_place():
    features = Features(tokens=torch.randn(2, 36, 8), grid=(3, 4))
    adapter = transparent(8, over="frames")
    torch.testing.assert_close(adapter(features, Context()).tokens, features.tokens.unflatten(1, (3, 12)).mean(1))
    assert adapter.layout(Layout.of(36, (3, 4))) == Layout.of(12, (3, 4))


def test_frames_that_an_item_lacks_do_not_count():
    mask = torch.ones(2, 36, dtype=torch.bool)
    mask[1, 12:] = False
    features = Features(tokens=torch.randn(2, 36, 8), grid=(3, 4), mask=mask)
    embeds = transparent(8, over="frames")(features, Context())
    torch.testing.assert_close(embeds.tokens[1], features.tokens[1, :12])
    assert embeds.mask.all()


def test_all_is_one_slot():
    mask = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    features = Features(tokens=torch.randn(2, 6, 8), mask=mask)
    adapter = transparent(8, over="all")
    embeds = adapter(features, Context())
    torch.testing.assert_close(
        embeds.tokens[:, 0], torch.stack([features.tokens[0].mean(0), features.tokens[1, :2].mean(0)])
    )
    assert adapter.layout(Layout.of(6)) == Layout.of(1)


def test_an_edge_averages_what_is_there():
    features = Features(tokens=torch.tensor([[[1.0], [3.0], [5.0], [7.0], [9.0], [20.0]]]), grid=(2, 3))
    embeds = transparent(1, kernel=2)(features, Context())
    assert embeds.tokens.flatten().tolist() == [5.0, 12.5]


def test_frames_and_tiles_are_pooled_one_by_one():
    features = Features(tokens=torch.randn(2, 36, 8), grid=(3, 4))
    adapter = transparent(8, kernel=2)
    alone = [adapter(Features(tokens=part, grid=(3, 4)), Context()).tokens for part in features.tokens.split(12, dim=1)]
    torch.testing.assert_close(adapter(features, Context()).tokens, torch.cat(alone, dim=1))
    tiles = Layout(runs=(Run(slots=12, grid=(3, 4)), Run(token=";"), Run(slots=24, grid=(3, 4))))
    assert adapter.layout(tiles).runs == (Run(slots=4, grid=(2, 2)), Run(token=";"), Run(slots=8, grid=(2, 2)))


def test_a_sequence_needs_no_raster_and_rounds_up():
    adapter = transparent(8, over="sequence", kernel=4)
    assert adapter.layout(Layout.of(10)) == Layout.of(3)
    assert adapter(Features(tokens=torch.randn(1, 10, 8)), Context()).tokens.shape == (1, 3, 8)
    assert adapter.layout(Layout.of(12, (4, 3))) == Layout.of(3)


def test_windows_need_a_raster():
    with pytest.raises(UserError, match="average_pool needs an encoder whose tokens form a raster"):
        AveragePoolAdapter(8, 8).layout(Layout.of(10))
    with pytest.raises(DataError, match="10 tokens came without one"):
        AveragePoolAdapter(8, 8)(Features(tokens=torch.randn(1, 10, 8)), Context())


def test_a_map_of_another_raster_makes_one_sequence():
    """LLaVA-NeXT's pictures: 16 tokens of the whole, 2 rows of 5 of the map, of which the second item has none."""
    rows = (Run(slots=5, grid=(1, 5)), Run(token="newline")) * 2
    adapter = transparent(8, over="sequence", kernel=4)
    mask = torch.ones(2, 26, dtype=torch.bool)
    mask[1, 16:] = False
    embeds = adapter(Features(tokens=torch.randn(2, 26, 8), mask=mask), Context())
    picture = Run(slots=16, grid=(4, 4))
    layouts = [Layout(runs=(picture, *rows)), Layout(runs=(picture,))]
    assert embeds.mask.sum(1).tolist() == [adapter.layout(layout).num_slots for layout in layouts] == [7, 4]
    assert transparent(8, over="frames").layout(layouts[0]) == Layout.of(26)


@pytest.mark.parametrize("wrong", [{"kernel": 0}, {"depth": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(UserError, match="at least 1"):
        AveragePoolAdapter(8, 8, **wrong)
