"""Frames and segments, side by side in their item."""

import torch

from mmunify.encoders._moments import join_moments, repeat_layout
from mmunify.types import Features, Layout, Run


def test_layouts_repeat_rasters_and_join_plain_tokens():
    assert repeat_layout(Layout.of(6, (2, 3)), 2).runs == (Run(slots=6, grid=(2, 3)),) * 2
    assert repeat_layout(Layout.of(5), 3) == Layout.of(15)


def test_items_keep_their_frames_together():
    tokens = torch.arange(2 * 3 * 4).float().view(6, 4, 1)
    features = Features(
        tokens=tokens, grid=(2, 2), pooled=tokens.mean(1), mask=tokens[..., 0] > 2, layers={1: tokens[:, :2]}
    )
    joined = join_moments(features, 2, 3)
    assert joined.tokens[1, :, 0].tolist() == list(range(12, 24))
    assert joined.mask[0].tolist() == [False] * 3 + [True] * 9
    assert joined.pooled[:, 0].tolist() == [5.5, 17.5]
    assert joined.layers[1].shape == (2, 6, 1) and joined.grid == (2, 2)


def test_no_items():
    features = Features(
        tokens=torch.zeros(0, 4, 5), pooled=torch.zeros(0, 5), mask=torch.zeros(0, 4, dtype=torch.bool), grid=(2, 2)
    )
    joined = join_moments(features, 0, 3)
    assert (joined.tokens.shape, joined.pooled.shape, joined.mask.shape) == ((0, 12, 5), (0, 5), (0, 12))
