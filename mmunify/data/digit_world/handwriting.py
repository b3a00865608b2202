"""Real handwritten digits (scikit-learn's bundled set, 8 x 8), split once and for all into train and test samples.

Which sample is in which split is committed as index lists, so that nobody can train on test handwriting by accident.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmunify.errors import DataError

Split = Literal["train", "test"]

SPLIT_FILE = Path(__file__).parents[2] / "assets" / "tiny" / "handwriting_split.json"

TEST_EVERY = 4
"""The rule that made the lists: of the samples of one digit, in their order, every fourth is a test sample."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glyphs:
    """Handwriting of one split.

    Attributes:
        ink: [n 8 8] float32, 0 = paper, 1 = full ink.
        digit: [n] the digit that was written.
        sample: [n] index of each glyph in scikit-learn's set.
    """

    ink: np.ndarray
    digit: np.ndarray
    sample: np.ndarray


@cache
def _bundled() -> tuple[np.ndarray, np.ndarray]:
    """All glyphs ([n 8 8], 0..1) and their digits ([n]), as scikit-learn ships them."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images, target = np.asarray(data["images"]), np.asarray(data["target"])
    return (images / 16.0).astype(np.float32), target.astype(np.int64)


def split_samples(digits: np.ndarray) -> dict[str, list[int]]:
    """The rule behind the committed index lists: stratified by digit, every fourth sample goes to the test split.

    Args:
        digits: [n] the digit of every sample.
    """
    test: list[int] = []
    for digit in range(10):
        test += np.flatnonzero(digits == digit)[TEST_EVERY - 1 :: TEST_EVERY].tolist()
    train = np.setdiff1d(np.arange(len(digits)), test).tolist()
    return {"train": train, "test": sorted(test)}


@cache
def load_glyphs(split: Split | str) -> Glyphs:
    """The handwriting of "train" or "test".

    Raises:
        DataError: the split is neither of the two.
    """
    lists = json.loads(SPLIT_FILE.read_text())
    if split not in lists:
        raise DataError(f"unknown handwriting split {split!r}: expected one of {sorted(lists)}")
    ink, digits = _bundled()
    sample = np.asarray(lists[split], dtype=np.int64)
    return Glyphs(ink=ink[sample], digit=digits[sample], sample=sample)


@cache
def _samples_of(digit: int, split: Split) -> np.ndarray:
    glyphs = load_glyphs(split)
    return glyphs.sample[glyphs.digit == digit]


def pick(rng: np.random.Generator, digit: int, split: Split = "train") -> int:
    """Draw one handwriting sample of `digit` from a split.

    Raises:
        DataError: `digit` is not 0..9.
    """
    samples = _samples_of(digit, split)
    if not len(samples):
        raise DataError(f"no handwriting of digit {digit!r}: expected 0..9")
    return int(samples[rng.integers(len(samples))])


def ink(sample: int) -> np.ndarray:
    """The [8 8] ink, 0..1, of one sample."""
    return _bundled()[0][sample]


def written_digit(sample: int) -> int:
    """The digit that one sample shows."""
    return int(_bundled()[1][sample])
