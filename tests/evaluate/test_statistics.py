"""Intervals against published values and against their own definition."""

import math

import numpy as np
import pytest

from mmunify.evaluate.statistics import bootstrap, mean, rate, ratio


def test_wilson_interval_of_a_textbook_case():
    # 81 of 263: Newcombe 1998, table I, method 3
    measure = rate([True] * 81 + [False] * 182)
    assert (round(measure.low, 4), round(measure.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(("hits", "low", "high"), [([True] * 40, 0.9124, 1.0), ([False] * 40, 0.0, 0.0876)])
def test_wilson_stays_inside_and_has_width_at_the_ends(hits, low, high):
    measure = rate(hits)
    assert (measure.low, measure.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_solves_its_own_equation():
    measure = rate([True] * 7 + [False] * 3)
    for bound in (measure.low, measure.high):
        z = (0.7 - bound) / math.sqrt(bound * (1 - bound) / 10)
        assert abs(z) == pytest.approx(1.95996398, abs=1e-6)


def test_no_samples_give_nan_not_zero():
    for measure in (rate([]), mean([]), ratio([])):
        assert measure.n == 0
        assert math.isnan(measure.value)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    measure = mean(list(values))
    half = 1.96 * values.std() / 20
    assert measure.value == pytest.approx(values.mean())
    assert measure.low == pytest.approx(values.mean() - half, abs=0.05)
    assert measure.high == pytest.approx(values.mean() + half, abs=0.05)


def test_bootstrap_depends_on_the_seed_alone():
    values = [0.0, 1.0, 5.0, 2.0]
    assert mean(values, seed=3) == mean(values, seed=3)
    assert mean(values * 9, seed=3) != mean(values * 9, seed=4)


def test_ratio_divides_sums_not_means():
    measure = ratio([(1.0, 2.0), (9.0, 10.0)])
    assert measure.value == pytest.approx(10 / 12)
    assert ratio([(0.0, 0.0)]).value == 0.0


def test_bootstrap_takes_any_statistic():
    rows = np.array([[1.0], [2.0], [9.0]])
    assert bootstrap(rows, lambda sample: float(np.median(sample))).value == 2.0


def test_as_dict_has_the_keys_of_the_json_file():
    assert rate([True]).as_dict() == {"value": 1.0, "n": 1, "low": pytest.approx(0.206549, abs=1e-6), "high": 1.0}
