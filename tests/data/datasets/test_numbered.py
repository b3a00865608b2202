"""What the drawn data sets share."""

import pytest

from mmunify.data.datasets._numbered import Numbered
from mmunify.registry import DATASETS
from mmunify.types import Sample


class Squares(Numbered):
    noun, task = "a set of squares", "square"

    def make(self, index: int) -> Sample:
        return Sample(turns=(), id=str(index**2), task=self.task)


def test_numbers_beyond_the_length_are_refused():
    squares = Squares(4)
    assert len(squares) == 4 and [squares[i].id for i in range(4)] == ["0", "1", "4", "9"]
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"sample {index} of a set of squares with 4 samples"):
            squares[index]
    assert squares.by_task() == {"square": (squares, 1.0)}


def test_conversations_of_one_task_keep_all_else():
    whole = DATASETS.build({"name": "digit_text", "tasks": {"caption": 1, "refer": 3}, "length": 40, "seed": 5})
    parts = whole.by_task()
    assert {task: (len(part), share) for task, (part, share) in parts.items()} == {
        "caption": (10, 0.25),
        "refer": (30, 0.75),
    }
    sample = parts["refer"][0][7]
    assert sample.id == "digit_text-train-5-refer-7" and sample.task == "refer"
    assert len(whole) == 40 and whole[7].id == "digit_text-train-5-7"
