import pytest
import torch

from mmunify.errors import DataError, UserError
from mmunify.layers.rasters import (
    count_frames,
    from_raster,
    join_frames,
    map_frames,
    map_slots,
    repeat_layout,
    resize_table,
    shrink_grid,
    slots_mask,
    split_frames,
    to_raster,
    tokens_per_frame,
)
from mmunify.types import Features, Layout, Run


def clip(num_frames=3, grid=(2, 2), mask=None):
    cells = grid[0] * grid[1]
    tokens = torch.arange(2 * num_frames * cells * 5.0).reshape(2, num_frames * cells, 5)
    return Features(tokens=tokens, grid=grid, mask=mask)


def test_frames_become_items_and_items_again():
    features = clip()
    frames, num_frames = split_frames(features)
    assert num_frames == 3
    assert frames.tokens.shape == (6, 4, 5)
    assert torch.equal(frames.tokens[4], features.tokens[1, 4:8])
    assert torch.equal(join_frames(frames.tokens, None, 3).tokens, features.tokens)


@pytest.mark.parametrize("features", [clip(1), Features(tokens=torch.zeros(2, 7, 5))])
def test_one_frame_and_no_raster_pass(features):
    frames, num_frames = split_frames(features)
    assert frames is features
    assert num_frames == 1


def test_tokens_that_are_no_whole_number_of_rasters():
    with pytest.raises(DataError, match=r"7 tokens per item are no whole number of rasters of \(2, 2\) = 4 cells"):
        split_frames(Features(tokens=torch.zeros(1, 7, 5), grid=(2, 2)))


def test_a_frame_without_a_real_token_has_no_real_slots():
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 5:] = False
    frames, num_frames = split_frames(clip(mask=mask))
    joined = join_frames(torch.zeros(6, 2, 8), slots_mask(frames, 2, num_frames), num_frames)
    assert joined.mask.tolist() == [[True] * 6, [True] * 4 + [False] * 2]


def test_one_frame_always_has_its_slots():
    assert slots_mask(clip(1, mask=torch.zeros(2, 4, dtype=torch.bool)), 2, 1) is None


def test_pictures_and_back():
    features = clip(1, grid=(2, 3))
    raster = to_raster(features, "part")
    assert raster.shape == (2, 5, 2, 3)
    assert torch.equal(raster[1, :, 1, 0], features.tokens[1, 3])
    assert torch.equal(from_raster(raster), features.tokens)


def test_masked_tokens_are_zeros_in_a_picture():
    mask = torch.tensor([[True, False, True, True]] * 2)
    features = Features(tokens=torch.full((2, 4, 5), torch.inf), grid=(2, 2), mask=mask)
    assert to_raster(features, "part")[0, 0].tolist() == [[torch.inf, 0], [torch.inf, torch.inf]]


def test_a_picture_needs_a_grid():
    with pytest.raises(DataError, match="part needs features with a grid; 7 tokens came without one"):
        to_raster(Features(tokens=torch.zeros(1, 7, 5)), "part")


def test_a_resized_table_keeps_a_ramp():
    ramp = torch.arange(6.0).repeat(6, 1)
    table = torch.stack([ramp.flatten(), ramp.T.flatten()], dim=1)
    bigger = resize_table(table, (6, 6), (12, 6)).unflatten(0, (12, 6))
    torch.testing.assert_close(bigger[3:9, :, 0], ramp.repeat(2, 1)[3:9])
    torch.testing.assert_close(bigger[5:7, 0, 1], torch.tensor([2.25, 2.75]), atol=0.06, rtol=0)
    assert resize_table(table, (6, 6), (6, 6)) is table


def test_layouts_keep_their_strings():
    layout = Layout(runs=(Run(token="<a>"), Run(slots=24, grid=(3, 4)), Run(token="<b>"), Run(slots=12, grid=(3, 4))))
    shrunk = map_frames(layout, "part", lambda grid: shrink_grid(grid, 2))
    assert [run.token for run in shrunk.runs] == ["<a>", "", "<b>", ""]
    assert [(run.slots, run.grid) for run in shrunk.runs if run.slots] == [(8, (2, 2)), (4, (2, 2))]
    assert [run.slots for run in map_slots(layout, 9, (3, 3)).runs] == [0, 18, 0, 9]


def test_runs_that_share_no_raster_are_one_sequence():
    rows = (Run(slots=5, grid=(1, 5)), Run(token="newline")) * 2
    layout = Layout(runs=(Run(slots=16, grid=(4, 4)), *rows))
    assert map_slots(layout, 9, (3, 3)) == Layout.of(9, (3, 3))
    with pytest.raises(UserError, match="a run of 26 of them has no grid of its own"):
        map_frames(layout, "part", lambda grid: grid)


def test_a_single_sequence_keeps_its_strings():
    layout = Layout(runs=(Run(token="<a>"), Run(slots=7), Run(token="</a>")))
    assert [(run.token, run.slots) for run in map_slots(layout, 4).runs] == [("<a>", 0), ("", 4), ("</a>", 0)]


def test_frames_of_runs():
    assert count_frames(Run(slots=24, grid=(3, 4))) == 2
    assert count_frames(Run(slots=24)) == 1


def test_a_layout_without_raster_is_refused():
    with pytest.raises(UserError, match="part needs an encoder whose tokens form a raster; a run of 257 of them"):
        map_frames(Layout.of(257), "part", lambda grid: grid)


def test_a_frame_is_a_raster_or_an_equal_share():
    assert tokens_per_frame(Features(tokens=torch.zeros(1, 24, 6), grid=(3, 4), num_frames=2)) == 12
    assert tokens_per_frame(Features(tokens=torch.zeros(1, 24, 6), num_frames=3)) == 8
    assert tokens_per_frame(Features(tokens=torch.zeros(1, 24, 6))) == 24


def test_frames_without_a_raster_are_told_by_their_number():
    features = Features(tokens=torch.arange(12.0).view(1, 12, 1), num_frames=3)
    frames, num_frames = split_frames(features)
    assert (frames.tokens[:, 0, 0].tolist(), num_frames) == ([0.0, 4.0, 8.0], 3)
    assert join_frames(frames.tokens, None, num_frames).num_frames == 3
    layout = Layout(runs=(Run(slots=12, num_frames=3),))
    assert map_slots(layout, 5).runs == (Run(slots=15, num_frames=3),)
    assert map_slots(layout, 4, (2, 2)).runs == (Run(slots=12, grid=(2, 2)),)


def test_layouts_repeat_rasters_and_join_plain_tokens():
    assert repeat_layout(Layout.of(6, (2, 3)), 2).runs == (Run(slots=6, grid=(2, 3)),) * 2
    assert repeat_layout(Layout.of(5), 3).runs == (Run(slots=15, num_frames=3),)
