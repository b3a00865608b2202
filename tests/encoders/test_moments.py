"""Frames and segments, side by side in their item."""

import torch

from mmunify.encoders._moments import join_moments, tubes
from mmunify.types import Features


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
    assert joined.num_frames == 3


def test_no_items():
    features = Features(
        tokens=torch.zeros(0, 4, 5), pooled=torch.zeros(0, 5), mask=torch.zeros(0, 4, dtype=torch.bool), grid=(2, 2)
    )
    joined = join_moments(features, 0, 3)
    assert (joined.tokens.shape, joined.pooled.shape, joined.mask.shape) == ((0, 12, 5), (0, 5), (0, 12))


def test_tubes_hold_a_place_of_every_frame():
    tokens = torch.arange(2 * 3 * 4).float().view(2, 12, 1)  # three frames of 2 x 2 places
    joined = tubes(tokens, (2, 2))
    assert joined.shape == (2, 4, 3)
    assert joined[0, 1].tolist() == [1, 5, 9] and joined[1, 0].tolist() == [12, 16, 20]
