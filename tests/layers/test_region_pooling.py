"""Masks and boxes over features."""

import pytest
import torch

from mmunify.layers.region_pooling import LevelMaskPool, MaskPool, RoIPyramid, align_boxes

ITEMS = torch.tensor([0])


def ramp(width: int, height: int = 4) -> torch.Tensor:
    """A map whose value is its column."""
    return torch.arange(width, dtype=torch.float32).expand(1, 1, height, width)


def test_mean_under_a_mask():
    raster = torch.randn(2, 3, 4, 4)
    mask = torch.zeros(1, 8, 8)
    mask[0, 2:6, 4:8] = 1
    pooled = MaskPool()(raster, torch.tensor([1]), mask)
    torch.testing.assert_close(pooled[0], raster[1, :, 1:3, 2:4].mean(dim=(1, 2)))


def test_cells_count_by_the_share_that_is_covered():
    mask = torch.zeros(1, 8, 8)
    mask[0, :2, :3] = 1  # cell (0, 0) whole, cell (0, 1) half
    pooled = MaskPool()(ramp(4), ITEMS, mask)
    assert pooled.item() == pytest.approx((0 * 1.0 + 1 * 0.5) / 1.5)


def test_the_published_rule_counts_touched_cells_alike_and_loses_small_regions():
    mask = torch.zeros(1, 8, 8)
    mask[0, :2, :3] = 1
    assert MaskPool(soft=False)(ramp(4), ITEMS, mask).item() == pytest.approx(0.5)
    tiny = torch.zeros(1, 32, 32)
    tiny[0, 0, 0] = 1  # between the samples of a bilinear resize to 4 x 4
    raster = ramp(4) + 1
    assert MaskPool(soft=False)(raster, ITEMS, tiny).item() == 0.0
    assert MaskPool()(raster, ITEMS, tiny).item() == pytest.approx(1.0, abs=1e-4)


def test_levels_of_mask_pooling_are_summed_behind_their_linears():
    torch.manual_seed(0)
    pool = LevelMaskPool(3, 8, num_levels=2)
    rasters, mask = [torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)], torch.ones(1, 4, 4)
    summed = sum(level(raster.mean(dim=(2, 3))) for level, raster in zip(pool.levels, rasters, strict=True))
    torch.testing.assert_close(pool(rasters, ITEMS, mask), pool.project(summed))


@pytest.mark.parametrize(("scale", "first", "last"), [(224 / 336, 4.07, 122.93), (1.0, 6.36, 184.64)])
def test_a_whole_picture_box_at_both_scales(scale, first, last):
    """GLaMM's constant of 224 on features of 336 pixels reads the left two thirds of a map that is 192 wide."""
    cells = align_boxes(ramp(192, 192), ITEMS, torch.tensor([[0.0, 0.0, 1.0, 1.0]]) * scale)
    assert cells[0, 0, 0, 0].item() == pytest.approx(first, abs=0.01)
    assert cells[0, 0, 0, -1].item() == pytest.approx(last, abs=0.01)


def test_pyramid_shapes_and_the_scale_of_boxes():
    torch.manual_seed(0)
    narrow, whole = RoIPyramid(6, 16, 3, box_scale=0.5), RoIPyramid(6, 16, 3)
    narrow.load_state_dict(whole.state_dict())
    rasters = [torch.randn(2, 6, 4, 4) for _ in range(3)]
    items = torch.tensor([1, 0, 1])
    boxes = torch.tensor([[0.0, 0.2, 0.6, 1.0], [0.1, 0.1, 0.4, 0.8], [0.5, 0.0, 1.0, 0.5]])
    tokens = whole(rasters, items, boxes)
    assert tokens.shape == (3, 16)
    torch.testing.assert_close(whole(rasters, items[:1], boxes[:1]), tokens[:1])
    torch.testing.assert_close(narrow(rasters, items, boxes), whole(rasters, items, boxes / 2))


def test_parameters_at_the_published_size():
    with torch.device("meta"):
        pyramid = RoIPyramid(1024, 1024)
    assert pyramid.flatten.weight.numel() == 1024 * 1024 * 14 * 14  # about 205 M of them
    assert len(pyramid.fusions) == 5
    assert pyramid.fusions[0][1].num_groups == 64
