"""Mixtures: sample k of a run is a pure function of (seed, k), whatever the workers, ranks and interruptions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmunify.errors import DataError
from mmunify.types import Sample

FINENESS = 1000
"""A round of a mixture is as long as it needs to be for shares that are right to a thousandth."""


@runtime_checkable
class Source(Protocol):
    """A map-style data set."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Sample at an index, the same each time."""
        ...


@runtime_checkable
class TaskSource(Source, Protocol):
    """A data set that knows its tasks without reading every sample."""

    def by_task(self) -> Mapping[str, tuple[Any, float]]:
        """Task -> a data set with samples of that task alone, and its share of this one."""
        ...


class Mixture:
    """An endless sequence of samples drawn from weighted sources.

    Draws come in rounds as long as all sources together (some times that, where they are small). A round draws every
    source as often as its share says, in an order of its own; within a source, every epoch is a permutation of its
    own. So where the shares are those of the sizes (one source; `temperature: 1`), a round has every sample once.

    Args:
        sources: (data set, weight) pairs.
        seed: of the order.
        group: number of consecutive samples from one source, the batch size of `mix: source` and `mix: task`.
        temperature: None = a source's share is its weight's; T = that of weight * size ** (1 / T): 1 draws in
            proportion to the sizes, a large one evens them out.
        group_sizes: the group of every source, where they differ. Shares are those of groups, then.

    Raises:
        DataError: no source, an empty one, or weights that aren't positive.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Source, float]],
        seed: int = 0,
        group: int = 1,
        temperature: float | None = None,
        group_sizes: Sequence[int] = (),
    ) -> None:
        if not sources:
            raise DataError("a mixture needs at least one data set; the stage lists none under data:")
        for source, weight in sources:
            if len(source) == 0:
                raise DataError(f"data set {type(source).__name__} is empty; it must hold at least one sample")
            if not (weight > 0 and math.isfinite(weight)):
                raise DataError(f"weight of data set {type(source).__name__} must be positive, got {weight}")
        self.sources = [source for source, _ in sources]
        self.group_sizes = list(group_sizes) or [group] * len(sources)
        self.seed, self.group = seed, max(self.group_sizes)
        lengths = np.array([len(source) for source in self.sources], dtype=np.float64)
        weights = np.array([weight for _, weight in sources], dtype=np.float64)
        if temperature is not None:
            weights = weights * lengths ** (1 / temperature)
        self._ends = np.cumsum(_quotas(weights, math.ceil((lengths / self.group_sizes).sum())))

    @property
    def num_samples(self) -> int:
        """Samples of all sources together."""
        return sum(len(source) for source in self.sources)

    @property
    def mean_group(self) -> float:
        """Mean number of samples in a group."""
        return float(np.average(self.group_sizes, weights=np.diff(self._ends, prepend=0)))

    def members(self, batch: int, size: int) -> range:
        """Numbers of the samples in a batch: `size` of them, or one group."""
        if self.group == 1:
            return range(batch * size, (batch + 1) * size)
        source, _ = self._draw(batch)
        return range(batch * self.group, batch * self.group + self.group_sizes[source])

    def locate(self, k: int, attempt: int = 0) -> tuple[int, int]:
        """(source, index within it) of sample k, or of what takes its place after `attempt` failures."""
        group, inside = divmod(k, self.group)
        source, number = self._draw(group)
        size = len(self.sources[source])
        if attempt:
            return source, int(np.random.default_rng([self.seed, 3, k, attempt]).integers(size))
        epoch, place = divmod(number * self.group_sizes[source] + inside, size)
        return source, _permute(place, size, (self.seed, 2, source, epoch))

    def substitute(self, k: int, attempt: int) -> Sample:
        """What takes the place of sample k when it can't be used: another one of its source; 0 = itself."""
        source, index = self.locate(k, attempt)
        return self.sources[source][index]

    def describe(self, k: int, attempt: int = 0) -> str:
        """Name of a sample that can't be read."""
        source, index = self.locate(k, attempt)
        return f"{type(self.sources[source]).__name__}[{index}]"

    def __getitem__(self, k: int) -> Sample:
        """Sample k of the run."""
        return self.substitute(k, 0)

    def _draw(self, group: int) -> tuple[int, int]:
        """Source of a group, and how many groups of that source are numbered before it."""
        turn, place = divmod(group, int(self._ends[-1]))
        ticket = _permute(place, int(self._ends[-1]), (self.seed, 1, turn)) if len(self.sources) > 1 else place
        source = int(np.searchsorted(self._ends, ticket, side="right"))
        first = int(self._ends[source - 1]) if source else 0
        quota = int(self._ends[source]) - first
        return source, turn * quota + ticket - first


def split_by_task(source: Source) -> dict[str, tuple[Source, float]]:
    """Task -> the samples of that task alone, and their share of the data set.

    A data set that isn't a `TaskSource` is read once from end to end; records that can't be read count to the task
    with most samples, where whoever draws them reports them.
    """
    if isinstance(source, TaskSource):
        return dict(source.by_task())
    places: dict[str, list[int]] = {}
    unread: list[int] = []
    for index in range(len(source)):
        try:
            places.setdefault(source[index].task, []).append(index)
        except DataError:
            unread.append(index)
    largest = max(places, key=lambda task: len(places[task]), default="")
    places.setdefault(largest, []).extend(unread)
    return {task: (_Part(source, np.array(found)), len(found) / len(source)) for task, found in places.items()}


class _Part:
    """Some samples of a data set."""

    def __init__(self, source: Source, places: np.ndarray) -> None:
        self.source, self.places = source, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.places[index])]


def _quotas(weights: np.ndarray, length: int) -> np.ndarray:
    """Draws of every source in a round: `length` shared by weight, or a multiple of it where that is too coarse."""
    shares = weights / weights.sum()
    times = 1
    while True:
        quotas = _divide(shares, length * times)
        if np.abs(quotas / quotas.sum() - shares).max() <= 1 / FINENESS or length * times >= FINENESS * len(shares):
            return quotas
        times += 1


def _divide(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to the shares, none below one; the largest remainders are rounded up."""
    exact = shares * total
    quotas = np.maximum(1, np.floor(exact + 1e-9)).astype(np.int64)
    quotas[np.argsort(quotas - exact)[: max(0, total - quotas.sum())]] += 1
    return quotas


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
