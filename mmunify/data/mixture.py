"""Mixtures: sample k of a run is a pure function of (seed, k), whatever the workers, ranks and interruptions."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from mmunify.errors import DataError
from mmunify.types import Sample


@runtime_checkable
class Source(Protocol):
    """A map-style data set."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Sample at an index, the same each time."""
        ...


class Mixture:
    """An endless sequence of samples drawn from weighted sources.

    Within a source, every epoch is a permutation of its own. `group` consecutive samples share a source
    (a recipe's `mix: source` sets it to the batch size).

    Args:
        sources: (data set, weight) pairs.
        seed: of the order.
        group: number of consecutive samples from one source.

    Raises:
        DataError: no source, an empty one, or weights that aren't positive.
    """

    def __init__(self, sources: Sequence[tuple[Source, float]], seed: int = 0, group: int = 1) -> None:
        if not sources:
            raise DataError("a mixture needs at least one data set; the stage lists none under data:")
        for source, weight in sources:
            if len(source) == 0:
                raise DataError(f"data set {type(source).__name__} is empty; it must hold at least one sample")
            if not (weight > 0 and math.isfinite(weight)):
                raise DataError(f"weight of data set {type(source).__name__} must be positive, got {weight}")
        self.sources = [source for source, _ in sources]
        weights = np.array([weight for _, weight in sources], dtype=np.float64)
        self.bounds = np.cumsum(weights / weights.sum())
        self.seed, self.group = seed, group

    def locate(self, k: int) -> tuple[int, int]:
        """(source, index within it) of sample k."""
        draw = np.random.default_rng([self.seed, 1, k // self.group]).random()
        source = min(int(np.searchsorted(self.bounds, draw, side="right")), len(self.sources) - 1)
        size = len(self.sources[source])
        epoch, place = divmod(k, size)
        return source, _permute(place, size, (self.seed, 2, source, epoch))

    def __getitem__(self, k: int) -> Sample:
        """Sample k of the run."""
        source, index = self.locate(k)
        return self.sources[source][index]


def _permute(place: int, size: int, key: tuple[int, ...]) -> int:
    """Image of `place` under a keyed permutation of range(size), in constant time and memory.

    Four rounds of a Feistel network over the next even power of two; images outside are walked on.
    """
    half = max(1, math.ceil(math.log2(max(size, 2)) / 2))
    mask = (1 << half) - 1
    salts = np.random.default_rng(list(key)).integers(1, 2**31, size=8).tolist()
    value = place
    while True:
        left, right = value >> half, value & mask
        for multiplier, addend in zip(salts[::2], salts[1::2], strict=True):
            mixed = ((right * (multiplier | 1) + addend) ^ ((right + multiplier) >> 3)) * 2654435761 & 0xFFFFFFFF
            left, right = right, left ^ (mixed >> (32 - half) if half < 32 else mixed) & mask
        value = (left << half) | right
        if value < size:
            return value
