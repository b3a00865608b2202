import torch

from mmunify.experts.low_rank._reduce import sum_over_ranks


def test_one_process_has_its_own_sum():
    values = torch.randn(3, requires_grad=True)
    for over_ranks in (True, False):
        assert sum_over_ranks(values, over_ranks) is values
