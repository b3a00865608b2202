"""Sample k is a pure function of (seed, k); every epoch of a source is a permutation."""

from collections import Counter

import pytest

from mmunify.data.mixture import Mixture, _permute, split_by_task
from mmunify.errors import DataError
from mmunify.registry import DATASETS
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


@pytest.mark.parametrize("sizes", [(10, 20), (7, 500, 93)])
def test_a_round_draws_every_sample_once_where_shares_are_those_of_the_sizes(sizes):
    mixture = Mixture([(Numbers(size), 1.0) for size in sizes], seed=1, temperature=1.0)
    counts = Counter(mixture.locate(k) for k in range(sum(sizes)))
    assert len(counts) == sum(sizes) and set(counts.values()) == {1}


def test_every_source_goes_through_its_epochs():
    """Draws of a source are numbered, so none comes twice before all came once, whatever its share."""
    mixture = Mixture([(Numbers(600), 1.0), (Numbers(1400), 3.0)], seed=2)
    places = [mixture.locate(k) for k in range(2000)]
    counts = Counter(place for place in places if place[0] == 0)
    assert sum(counts.values()) == 500 and set(counts.values()) == {1}
    counts = Counter(place for place in places if place[0] == 1)
    assert sum(counts.values()) == 1500 and set(counts.values()) == {1, 2} and len(counts) == 1400


@pytest.mark.parametrize(
    ("temperature", "weights", "share"),
    [
        (None, (1, 1), 0.5),
        (1, (1, 1), 0.9),
        (2, (1, 1), 0.75),
        (1e6, (1, 1), 0.5),
        (1, (9, 1), 0.5),
        (1e6, (1, 3), 0.75),
    ],
)
def test_temperature_weighs_sizes(temperature, weights, share):
    sources = list(zip([Numbers(50), Numbers(450)], weights, strict=True))
    mixture = Mixture(sources, temperature=temperature)
    assert sum(mixture.locate(k)[0] for k in range(1000)) / 1000 == pytest.approx(share, abs=2e-3)


def test_groups_may_differ_in_size():
    mixture = Mixture([(Numbers(30), 1.0), (Numbers(31), 1.0)], group_sizes=[2, 6])
    batches = [mixture.members(j, 6) for j in range(200)]
    for members in batches:
        found = {mixture.locate(k)[0] for k in members}
        assert len(found) == 1 and len(members) == (2, 6)[found.pop()]
    assert mixture.mean_group == pytest.approx(4, abs=0.1)
    seen = [mixture.locate(k) for members in batches for k in members]
    assert len(set(seen)) == 61


def test_a_substitute_is_another_sample_of_the_same_source():
    mixture, again = (Mixture([(Numbers(300), 1.0), (Numbers(9), 1.0)], seed=4) for _ in range(2))
    for k in range(50):
        first, second = mixture.locate(k, 1), mixture.locate(k, 2)
        assert first == again.locate(k, 1) and first[0] == second[0] == mixture.locate(k)[0]
    assert sum(mixture.locate(k, 1) != mixture.locate(k) for k in range(50)) > 40
    assert mixture.substitute(3, 0) == mixture[3] and mixture.describe(3, 1).startswith("Numbers[")


class Tasks(Numbers):
    """Samples of tasks in turn; every tenth can't be read."""

    def __getitem__(self, index):
        if index % 10 == 9:
            raise DataError(f"sample {index} is broken")
        return Sample(turns=(), id=str(index), task=("ask", "ask", "draw")[index % 3])


def test_tasks_of_a_data_set():
    parts = split_by_task(Tasks(60))
    assert {task: [part[i].task for i in range(3)] for task, (part, _) in parts.items()} == {
        "ask": ["ask"] * 3,
        "draw": ["draw"] * 3,
    }
    assert sum(share for _, share in parts.values()) == pytest.approx(1)
    assert sum(len(part) for part, _ in parts.values()) == 60
    part, _ = parts["ask"]
    with pytest.raises(DataError, match="is broken"):
        [part[i] for i in range(len(part))]


def test_drawn_data_sets_know_their_tasks():
    whole = DATASETS.build({"name": "digit_world", "tasks": {"caption": 3, "refer": 1}, "length": 1000})
    parts = split_by_task(whole)
    assert {task: (len(part), share) for task, (part, share) in parts.items()} == {
        "caption": (750, 0.75),
        "refer": (250, 0.25),
    }
    assert {parts["refer"][0][i].task for i in range(20)} == {"refer"}
    several = DATASETS.build({"name": "digit_world", "turns": 2, "tasks": ["caption", "refer", "dialogue"]})
    assert {task: round(share, 3) for task, (_, share) in split_by_task(several).items()} == {
        "multi": 0.667,
        "dialogue": 0.333,
    }
    (task,) = split_by_task(DATASETS.build({"name": "digit_patches", "length": 3}))
    assert task == "patches"
