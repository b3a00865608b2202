"""Sample k is a pure function of (seed, k); every epoch of a source is a permutation."""

from collections import Counter

import pytest

from mmunify.data.mixture import Mixture, _permute
from mmunify.errors import DataError
from mmunify.types import Sample


class Numbers:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return Sample(turns=(), id=f"{self.size}:{index}")


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100, 1000])
def test_permutation_is_one_to_one_and_differs_by_key(size):
    images = [_permute(i, size, (0, 2, 0, 0)) for i in range(size)]
    assert sorted(images) == list(range(size))
    if size >= 64:
        assert images != [_permute(i, size, (1, 2, 0, 0)) for i in range(size)]
        fixed = sum(i == image for i, image in enumerate(images))
        assert fixed < size / 8


def test_one_source_is_an_epoch_without_repetition():
    mixture = Mixture([(Numbers(50), 1.0)], seed=3)
    first, second = ([mixture[k].id for k in range(e * 50, e * 50 + 50)] for e in (0, 1))
    assert len(set(first)) == len(set(second)) == 50
    assert first != second


def test_same_seed_same_order_whatever_was_asked_before():
    one, other = (Mixture([(Numbers(50), 1.0), (Numbers(9), 2.0)], seed=5) for _ in range(2))
    backwards = [other[k].id for k in reversed(range(40))]
    assert [one[k].id for k in range(40)] == backwards[::-1]
    assert [Mixture([(Numbers(50), 1.0)], seed=6)[k].id for k in range(9)] != [one[k].id for k in range(9)]


def test_weights_are_kept():
    mixture = Mixture([(Numbers(10), 1.0), (Numbers(20), 3.0)], seed=0)
    counts = Counter(mixture.locate(k)[0] for k in range(4000))
    assert 0.72 < counts[1] / 4000 < 0.78


def test_groups_share_a_source():
    mixture = Mixture([(Numbers(10), 1.0), (Numbers(20), 1.0)], seed=0, group=8)
    for start in range(0, 400, 8):
        assert len({mixture.locate(k)[0] for k in range(start, start + 8)}) == 1


@pytest.mark.parametrize(
    ("sources", "message"),
    [([], "at least one data set"), ([(Numbers(0), 1.0)], "Numbers is empty"), ([(Numbers(1), 0.0)], "got 0.0")],
)
def test_bad_mixtures(sources, message):
    with pytest.raises(DataError, match=message):
        Mixture(sources)
