"""Reading pictures back."""

import pytest

from mmunify.evaluate.metrics._pictures import read_back, read_places
from tests.evaluate.worlds import drawn

PICTURE = drawn([("red 1", (0.1, 0.1, 0.4, 0.4)), ("blue 0", (0.6, 0.6, 0.9, 0.9))])


@pytest.mark.parametrize(
    ("wanted", "exact", "share"),
    [
        (["red 1", "blue 0"], 1.0, 1.0),
        (["red 1"], 0.0, 1.0),
        (["red 1", "green 4"], 0.0, 0.5),
        (["red 1", "red 1"], 0.0, 0.5),
        (["red 2"], 0.0, 0.0),
    ],
)
def test_pictures_show_exactly_what_was_wanted_or_a_share_of_it(wanted, exact, share):
    measures = read_back([PICTURE], [wanted])
    assert (measures["read_back"].value, measures["read_back_digits"].value) == (exact, share)


def test_a_missing_picture_counts():
    measures = read_back([PICTURE, None], [["red 1", "blue 0"]] * 2)
    assert measures["read_back"].value == 0.5
    assert measures["read_back"].n == 2


@pytest.mark.parametrize(
    ("plan", "share"),
    [
        ([("red 1", (0.1, 0.1, 0.4, 0.4)), ("blue 0", (0.6, 0.6, 0.9, 0.9))], 1.0),
        ([("red 1", (0.1, 0.1, 0.4, 0.4))], 1.0),
        ([("blue 0", (0.1, 0.1, 0.4, 0.4)), ("red 1", (0.6, 0.6, 0.9, 0.9))], 0.0),
        ([("red 1", (0.6, 0.1, 0.9, 0.4))], 0.0),
    ],
)
def test_digits_count_at_their_places_alone(plan, share):
    plan = [{"name": name, "box": box} for name, box in plan]
    assert read_places([PICTURE], [plan]).value == share
    assert read_places([None], [plan]).value == 0.0
