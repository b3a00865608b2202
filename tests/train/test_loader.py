import pytest
import torch

from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.train.loader import Window, WindowLoader, stage_samples
from mmunify.types import Sample
from tests.train.worlds import ToyProcessor, toy_batch, toy_stage


def loader(**options) -> WindowLoader:
    return WindowLoader(range(10_000), ToyProcessor(), **{"batch_size": 4, "steps": 5, **options})


def keys(windows) -> list[list[int]]:
    return [[key for batch in window.batches for key in batch.keys] for window in windows]


def test_steps_take_consecutive_samples():
    assert keys(loader()) == [list(range(4 * step, 4 * step + 4)) for step in range(5)]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_any_split_of_a_step_sees_the_same_samples(world, accumulate):
    whole = keys(loader(batch_size=8))
    size = 8 // world // accumulate
    parts = [keys(loader(batch_size=size, rank=r, world=world, accumulate=accumulate)) for r in range(world)]
    assert [sum(shares, []) for shares in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumes_exactly(num_workers):
    first = loader(num_workers=num_workers)
    before = [window for window, _ in zip(first, range(2), strict=False)]
    second = loader(num_workers=num_workers)
    second.load_state_dict({"position": 2})
    after = list(second)
    assert keys(before + after) == keys(loader())
    assert second.state_dict() == {"position": 5} and len(second) == 5
    assert list(second) == []


def test_position_counts_what_was_handed_out():
    windows = loader()
    iterator = iter(windows)
    next(iterator), next(iterator)
    assert windows.state_dict() == {"position": 2}


def test_window_moves_as_a_whole():
    window = Window([toy_batch(1, 2), toy_batch(3)]).to(torch.device("meta"))
    assert all(batch.input_ids.is_meta for batch in window.batches)
    assert window.sample_ids == ["sample-1", "sample-2", "sample-3"]


class Letters:
    """A data set of one letter."""

    def __init__(self, letter: str = "a", size: int = 50) -> None:
        self.letter, self.size = letter, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        return Sample(turns=(), id=f"{self.letter}{index}")


def test_stage_samples_mix_sources_by_weight():
    data = [{"name": "letters", "letter": "a", "weight": 3}, {"name": "letters", "letter": "b"}]
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=data), [7, 0])
        again, other = stage_samples(toy_stage(data=data), [7, 0]), stage_samples(toy_stage(data=data), [7, 1])
    ids = [samples[k].id for k in range(400)]
    assert ids == [again[k].id for k in range(400)] and ids != [other[k].id for k in range(400)]
    assert 0.65 < sum(name.startswith("a") for name in ids) / 400 < 0.85


def test_mix_source_fills_a_batch_from_one_source():
    data = [{"name": "letters", "letter": letter} for letter in "ab"]
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=data, mix="source", batch_size=5), [0, 0])
    batches = [{samples[5 * step + i].id[0] for i in range(5)} for step in range(20)]
    assert all(len(letters) == 1 for letters in batches) and len(set.union(*batches)) == 2


def test_empty_and_missing_data():
    with DATASETS.temporary("letters", Letters), pytest.raises(DataError, match="Letters is empty"):
        stage_samples(toy_stage(data=[{"name": "letters", "size": 0}]), [0])
    with pytest.raises(DataError, match="at least one data set"):
        stage_samples(toy_stage(), [0])
    with pytest.raises(DataError, match="mix: task"):
        stage_samples(toy_stage(mix="task"), [0])
