import torch

from mmunify.train.ranks import (
    copy_rows,
    exchange,
    local_part,
    num_ranks,
    part_of_rank,
    row_range,
    shape_of,
    split_like,
    whole,
)


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


def test_parts_of_what_zero_splits(monkeypatch):
    """Seven numbers for three processes: three, three, one and two that mean nothing."""
    tensor = torch.nn.Parameter(torch.zeros(7))
    assert local_part(tensor) is tensor and shape_of(tensor) == (7,)
    numbers, parts = torch.arange(7.0), []
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        parts.append(torch.full((3,), -1.0))
        mine = part_of_rank(numbers, parts[-1])
        parts[-1][: len(mine)] = mine
    assert torch.cat(parts).tolist() == [0, 1, 2, 3, 4, 5, 6, -1, -1]

    tensor.ds_tensor, tensor.ds_shape, tensor.data = parts[2], torch.Size((7, 1)), torch.empty(0)
    monkeypatch.setattr("mmunify.train.ranks.num_ranks", lambda: 3)
    monkeypatch.setattr("torch.distributed.all_gather_into_tensor", lambda row, part: row.copy_(torch.cat(parts)))
    assert local_part(tensor) is parts[2] and shape_of(tensor) == (7, 1)
    assert torch.equal(whole(tensor), numbers.view(7, 1))
