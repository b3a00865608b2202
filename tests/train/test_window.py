"""What a worker makes of sample numbers."""

import pytest
import torch

from mmunify.data.bad_samples import BadSample
from mmunify.errors import DataError
from mmunify.train.window import MAX_ATTEMPTS, Made, Order, Reader, Window
from tests.train.worlds import ToyProcessor, toy_batch


def test_window_moves_as_a_whole():
    window = Window([toy_batch(1, 2), toy_batch(3)]).to(torch.device("meta"))
    assert all(batch.input_ids.is_meta for batch in window.batches)
    assert window.sample_ids == ["sample-1", "sample-2", "sample-3"]


class Named:
    """Number 100 k + attempt stands for a sample."""

    def __init__(self, number: int) -> None:
        self.number, self.id = number, f"n{number}"


class Replacing:
    """Samples below `first_good` attempts can't be read."""

    def __init__(self, first_good: int) -> None:
        self.first_good = first_good

    def __getitem__(self, k: int) -> Named:
        return self.substitute(k, 0)

    def substitute(self, k: int, attempt: int) -> Named:
        if attempt < self.first_good:
            raise DataError(f"line {k} is torn")
        return Named(100 * k + attempt)

    def describe(self, k: int, attempt: int = 0) -> str:
        return f"file[{k}, {attempt}]"


class Picky(ToyProcessor):
    """Refuses even numbers."""

    def encode(self, sample: Named) -> int:
        if sample.number % 2 == 0:
            raise DataError(f"sample {sample.id!r}: it is even")
        return sample.number


def test_bad_samples_are_named_and_replaced():
    reader = Reader(Replacing(2), Picky())
    number, bad = reader[5]
    assert number == 503
    assert bad == (
        BadSample(number=5, id="file[5, 0]", reason="line 5 is torn"),
        BadSample(number=5, id="file[5, 1]", reason="line 5 is torn"),
        BadSample(number=5, id="n502", reason="it is even"),
    )
    made = reader.make([reader[5], reader[6]])
    assert made.is_whole and made.num_good == 2 and len(made.bad) == 6
    assert made.batches[0].keys == (503, 603) and len(made.batches) == 1


def test_a_place_that_nothing_can_fill_spoils_the_batch():
    reader = Reader(Replacing(MAX_ATTEMPTS), Picky())
    example, bad = reader[5]
    assert example is None and len(bad) == MAX_ATTEMPTS
    good = Reader(Replacing(1), Picky())[5]
    made = reader.make([good, reader[5]])
    assert made == Made(batches=(), num_good=0, bad=bad, is_whole=False)


def test_sequences_that_know_no_substitutes_raise():
    class Plain:
        def __getitem__(self, k: int) -> Named:
            return Named(k)

    with pytest.raises(DataError, match="it is even"):
        Reader(Plain(), Picky())[2]
    assert Reader(Plain(), Picky())[3] == (3, ())


def test_order_is_made_as_it_is_asked_for():
    asked = []

    def indices(step: int) -> list[list[int]]:
        asked.append(step)
        return [[2 * step], [2 * step + 1]]

    order = Order(indices, 3, 1_000_000_000, 2)
    assert len(order) == 2 * (1_000_000_000 - 3) and next(iter(order)) == [6] and asked == [3]
