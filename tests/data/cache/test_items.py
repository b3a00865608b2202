import pytest
import torch

from mmunify.data.cache.items import join_items, split_features
from mmunify.types import Features

EXTENTS = [(8, 6), (4, 4)]


def features(mask=None, **fields):
    return Features(tokens=torch.randn(2, 6, 3), mask=mask, **fields)


def there_and_back(made):
    return join_items(split_features(made, EXTENTS))


def test_all_of_an_encoders_answer_comes_back():
    made = features(grid=(2, 3), pooled=torch.randn(2, 4), layers={-2: torch.randn(2, 7, 3)}, num_frames=1)
    again = there_and_back(made)
    assert torch.equal(again.tokens, made.tokens) and torch.equal(again.pooled, made.pooled)
    assert torch.equal(again.layers[-2], made.layers[-2]) and again.mask is None
    assert (again.grid, again.num_frames) == ((2, 3), 1)


def test_padding_is_not_stored_and_comes_back():
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    made = features(mask, grid=(1, 2), layers={1: torch.randn(2, 9, 3)})
    made.tokens[1, 4:] = 0
    made.layers[1][1, 6:] = 0
    items = split_features(made, EXTENTS)
    assert [len(item.tensors["tokens"]) for item in items] == [6, 4]
    assert [len(item.tensors["layers.1"]) for item in items] == [9, 6]
    again = join_items(items)
    assert torch.equal(again.tokens, made.tokens) and torch.equal(again.mask, mask)
    assert torch.equal(again.layers[1], made.layers[1]) and again.grid == (1, 2)
    assert items[1].extent == (4, 4) and items[1].num_bytes == 4 * (4 * 3 + 6 * 3)


def test_centres_of_tiles_come_back_without_those_of_padding():
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    centers = torch.rand(2, 3, 2)
    centers[1, 2] = 0
    items = split_features(features(mask, grid=(1, 2), centers=centers), EXTENTS)
    assert [len(item.tensors["centers"]) for item in items] == [3, 2]
    assert torch.equal(join_items(items).centers, centers)


def test_items_of_other_batches_are_padded_to_the_longest():
    short = split_features(Features(tokens=torch.randn(1, 2, 3), num_frames=2), [(1, 1)])
    whole = join_items([*split_features(features(), EXTENTS), *short])
    assert whole.tokens.shape == (3, 6, 3)
    assert whole.mask.sum(1).tolist() == [6, 6, 2] and whole.num_frames is None


def test_types_are_kept():
    made = Features(tokens=torch.randn(2, 6, 3).bfloat16())
    assert there_and_back(made).tokens.dtype == torch.bfloat16


@pytest.mark.parametrize("real", [[False, True, True, True, True, True], [True, False, True, True, True, True]])
def test_items_whose_real_tokens_do_not_come_first_are_left_out(real):
    mask = torch.tensor([[True] * 6, real])
    assert [item is None for item in split_features(features(mask), EXTENTS)] == [False, True]
