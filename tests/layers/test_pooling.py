from functools import partial

import torch
from torch.nn import functional as F

from mmunify.layers.pooling import masked_mean, masked_pool


def test_mean_of_real_tokens():
    tokens = torch.randn(3, 4, 5)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    mean = masked_mean(torch.where(mask[..., None], tokens, torch.nan), mask)
    torch.testing.assert_close(mean, torch.stack([tokens[0].mean(0), tokens[1, [0, 2]].mean(0), torch.zeros(5)]))
    assert torch.equal(masked_mean(tokens, mask, keepdim=True)[:, 0], masked_mean(tokens, mask))
    assert torch.equal(masked_mean(tokens), tokens.mean(1))


def test_windows_leave_masked_values_out():
    values = torch.tensor([[[1.0, 3.0, 5.0, 100.0, 9.0, 100.0, 100.0]]])
    mask = torch.tensor([[True, True, True, False, True, False, False]])
    pooled, real = masked_pool(partial(F.avg_pool1d, kernel_size=2, ceil_mode=True), values, mask)
    assert pooled.tolist() == [[[2.0, 5.0, 9.0, 0.0]]]
    assert real.tolist() == [[True, True, True, False]]


def test_without_a_mask_it_is_the_pooling_itself():
    values = torch.randn(2, 3, 5, 5)
    pool = partial(F.avg_pool2d, kernel_size=2, ceil_mode=True)
    pooled, real = masked_pool(pool, values)
    assert torch.equal(pooled, pool(values))
    assert real is None
    all_real = masked_pool(pool, values, torch.ones(2, 5, 5, dtype=torch.bool))
    torch.testing.assert_close(all_real[0], pooled)
    assert all_real[1].all()
