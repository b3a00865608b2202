import torch

from mmunify.train.ranks import copy_rows, exchange, num_ranks, row_range, split_like, whole


def test_one_process_is_alone():
    assert num_ranks() == 1 and exchange([1, "two"]) == [1, "two"]


def test_whole_tensors_stay_as_they_are():
    tensor = torch.arange(6.0).view(3, 2)
    assert whole(tensor) is tensor and split_like(tensor, torch.zeros(3, 2)) is tensor
    local, start = row_range(tensor)
    assert local is tensor and start == 0


def test_rows_are_copied_in_place():
    target, number, source = torch.zeros(3, 2), torch.zeros(()), torch.arange(6.0).view(3, 2)
    copy_rows(target, lambda start, stop: source[start:stop])
    copy_rows(number, lambda start, stop: torch.tensor(5.0))
    assert torch.equal(target, source) and number == 5
