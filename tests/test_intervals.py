"""Intervals against hand arithmetic and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from fewshot_runner.intervals import interval, t_interval, wilson_interval


def test_trap_12_interval_by_hand() -> None:
    """0.6, 0.8, 0.7, 0.9: mean 0.75, squares 0.0225 + 0.0025 + 0.0025 + 0.0225 = 0.05, so s^2 = 0.05 / 3.

    With t(0.975, 3) = 3.182446 from a printed table, the half width is 3.182446 sqrt(0.0166667 / 4) = 0.205426.
    """
    assert t_interval(np.array([0.6, 0.8, 0.7, 0.9])) == pytest.approx(0.205426, abs=1e-6)


def test_trap_12_interval_shrinks_with_the_square_root_of_the_episodes() -> None:
    values = np.array([0.2, 0.4] * 500)
    # s is almost 0.1 and t almost 1.96: 1.96 * 0.1 / sqrt(1000)
    assert t_interval(values) == pytest.approx(1.96 * 0.1 / math.sqrt(1000), rel=5e-3)


@pytest.mark.parametrize("count", [2, 5, 600])
def test_trap_12_interval_equals_scipys(count: int) -> None:
    values = np.random.default_rng(count).random(count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx((high - low) / 2, rel=1e-9)


def test_one_episode_has_no_interval() -> None:
    assert t_interval(np.array([0.5])) is None
    assert t_interval(np.full(10, 0.5)) == 0


@pytest.mark.parametrize("right", [0, 1, 5, 9, 10])
def test_the_interval_of_a_share_by_wilsons_formula(right: int) -> None:
    """(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.959964 and n = 10."""
    n, z, p = 10, 1.959964, right / 10
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    values = np.array([1.0] * right + [0.0] * (n - right))
    assert wilson_interval(values) == pytest.approx(max(high - p, p - low), abs=1e-6)


def test_a_test_without_a_mistake_has_an_interval() -> None:
    """264 right answers of 264: the lower end is n / (n + z^2) = 264 / 267.8415 = 98.566 %."""
    assert wilson_interval(np.ones(264)) == pytest.approx(1 - 264 / 267.8415, abs=1e-6)


@pytest.mark.parametrize(("right", "count"), [(0, 3), (3, 7), (50, 50), (263, 264)])
def test_the_interval_of_a_share_is_scipys(right: int, count: int) -> None:
    ends = stats.binomtest(right, count).proportion_ci(method="wilson")
    values = np.repeat([1.0, 0.0], (right, count - right))
    assert wilson_interval(values) == pytest.approx(max(ends.high - right / count, right / count - ends.low))


@pytest.mark.parametrize("unit", ["images", "pairs", "queries"])
def test_single_answers_have_a_shares_interval_though_one_is_a_tie(unit: str) -> None:
    """Wilson's formula, as above, with 9.5 of 10: an interval between those of 10 and of 9."""
    z = 1.959964
    middle, spread = (9.5 + z**2 / 2) / (10 + z**2), z * math.sqrt(9.5 * 0.05 + z**2 / 4) / (10 + z**2)
    tied = np.array([1.0] * 9 + [0.5])
    assert interval(tied, unit=unit) == pytest.approx(0.95 - (middle - spread), abs=1e-6)
    assert wilson_interval(np.ones(10)) < interval(tied, unit=unit) < wilson_interval(np.repeat([1.0, 0.0], (9, 1)))
    assert interval(np.array([1.0, 1.0, 0.0]), unit=unit) == wilson_interval(np.array([1.0, 1.0, 0.0]))
    assert interval(np.array([1.0]), unit=unit) is None


@pytest.mark.parametrize("unit", ["episodes", "probes"])
def test_figures_by_degrees_have_students_interval_and_a_flawless_set_a_bound(unit: str) -> None:
    for values in ([1.0, 0.5, 0.0], [1.0, 1.0, 0.0]):
        assert interval(np.array(values), unit=unit) == t_interval(np.array(values))
    assert interval(np.array([1.0]), unit=unit) is None
    for values in (np.ones(20), np.zeros(20)):  # up to z^2 / (20 + z^2) of all may be others
        assert interval(values, unit=unit) == pytest.approx(3.841459 / 23.841459, abs=1e-6)
    assert interval(np.full(20, 0.2), unit=unit) == pytest.approx(0, abs=1e-9)  # as chance gives it, which is no luck
