"""Reading pictures back: do they show exactly what was asked for?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmunify.evaluate.reader import find_digits, read_box
from mmunify.evaluate.statistics import Measure, mean, rate


def read_back(
    pictures: Sequence[np.ndarray | None], wanted: Sequence[Sequence[str]], seed: int = 0
) -> dict[str, Measure]:
    """Score pictures by the names ("red 7") that the independent reader finds in them.

    Args:
        pictures: uint8 [H W 3]; None = nothing was made, which is wrong.
        wanted: names that each picture should show, and no others.
        seed: of the bootstrap.

    Returns:
        `read_back`: share of pictures that show exactly the wanted digits.
        `read_back_digits`: mean share of the wanted digits that a picture shows.
    """
    exact, shares = [], []
    for picture, names in zip(pictures, wanted, strict=True):
        found = Counter() if picture is None else Counter(item.name for item in find_digits(picture))
        exact.append(picture is not None and found == Counter(names))
        shares.append((found & Counter(names)).total() / max(len(names), 1))
    return {"read_back": rate(exact), "read_back_digits": mean(shares, seed)}


def read_places(pictures: Sequence[np.ndarray | None], plans: Sequence[Sequence[Mapping[str, Any]]]) -> Measure:
    """Share of pictures in which every planned digit can be read, in its colour, at its place.

    Args:
        pictures: uint8 [H W 3]; None = nothing was made, which is wrong.
        plans: for each picture the objects that were asked for: their `name` and `box` (0..1).
    """
    return rate([picture is not None and _shows(picture, plan) for picture, plan in zip(pictures, plans, strict=True)])


def _shows(picture: np.ndarray, plan: Sequence[Mapping[str, Any]]) -> bool:
    found = [read_box(picture, item["box"]) for item in plan]
    return all(digit is not None and digit.name == item["name"] for digit, item in zip(found, plan, strict=True))
