"""Names drawn with weights."""

import numpy as np
import pytest

from mmunify.data.digit_world.drawing_lots import Lots
from mmunify.errors import DataError

KNOWN = ("one", "two", "three")


def test_weights_are_respected():
    rng, lots = np.random.default_rng(0), Lots({"one": 3, "two": 1}, KNOWN, "number")
    drawn = [lots.draw(rng) for _ in range(400)]
    assert 260 < drawn.count("one") < 340 and drawn.count("one") + drawn.count("two") == 400


def test_lists_are_equally_likely():
    rng, lots = np.random.default_rng(0), Lots(KNOWN, KNOWN, "number")
    drawn = [lots.draw(rng) for _ in range(300)]
    assert all(70 < drawn.count(name) < 130 for name in KNOWN)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "name at least one number: one, two, three"),
        (["tow"], "no number named 'tow'; did you mean 'two'"),
        ({"one": 0}, "weight 0 of number 'one' must be positive"),
        ({"one": float("nan")}, "must be positive"),
    ],
)
def test_wrong_names_and_weights(names, message):
    with pytest.raises(DataError, match=message):
        Lots(names, KNOWN, "number")
