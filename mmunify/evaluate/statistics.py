"""Numbers with their uncertainty: every metric is a `Measure` = value, sample size, 95 % interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric.

    Attributes:
        value: the metric itself; nan without samples.
        n: samples behind it.
        low, high: 95 % interval (Wilson for rates, bootstrap for everything else).
    """

    value: float
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, float | int]:
        """`{"value", "n", "low", "high"}`, rounded to 6 decimals: what the JSON file holds."""
        return {key: round(x, 6) if isinstance(x, float) else x for key, x in asdict(self).items()}


EMPTY = Measure(math.nan, 0, math.nan, math.nan)


def rate(hits: Sequence[bool]) -> Measure:
    """Share of hits with Wilson's 95 % score interval (Wilson 1927), which stays sensible at 0 and at 1."""
    n = len(hits)
    if n == 0:
        return EMPTY
    share = sum(map(bool, hits)) / n
    scale = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    # the bounds touch the ends exactly there; rounding must not push them past the value
    return Measure(share, n, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def bootstrap(rows: Float[np.ndarray, "n k"], statistic: Callable[[np.ndarray], float], seed: int = 0) -> Measure:
    """A statistic of samples with its percentile bootstrap interval; the resamples depend on `seed` and n alone.

    Args:
        rows: one row of k numbers per sample.
        statistic: maps rows [n k] to the metric.
        seed: of the resampling.
    """
    n = len(rows)
    if n == 0:
        return EMPTY
    draws = np.random.default_rng(seed).integers(0, n, size=(NUM_RESAMPLES, n))
    low, high = np.quantile([statistic(rows[draw]) for draw in draws], (0.025, 0.975))
    return Measure(float(statistic(rows)), n, float(low), float(high))


def mean(values: Sequence[float], seed: int = 0) -> Measure:
    """Mean of per-sample values with its bootstrap interval."""
    rows = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return bootstrap(rows, lambda sample: float(sample.mean()), seed)


def ratio(pairs: Sequence[tuple[float, float]], seed: int = 0, epsilon: float = 0.0) -> Measure:
    """Sum of numerators over (sum of denominators + epsilon), samples resampled in pairs."""
    rows = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)

    def statistic(sample: np.ndarray) -> float:
        top, bottom = sample.sum(axis=0)
        return float(top / (bottom + epsilon)) if bottom + epsilon > 0 else 0.0

    return bootstrap(rows, statistic, seed)
