"""How many more tasks or seeds: against simulations, textbooks and scipy.stats."""

import numpy as np
import pytest
from scipy import stats

from fewshot_runner.report.power import needed_seeds, needed_tasks, power, with_needs
from fewshot_runner.report.statistics import Difference, Spread, paired_difference, sum_of


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 1.0), (0.9, 1.0), (0.2, 0.5)])
def test_the_needed_tasks_reach_the_power_and_fewer_do_not(mean, deviation):
    count = needed_tasks(mean, Spread(deviation**2 / 5, 4, 5, deviation**2))
    random = np.random.default_rng(1)

    def found(n: int) -> float:
        """How often the paired t-test finds it, in a simulation."""
        samples = random.normal(mean, deviation, (20_000, n))
        return float((stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean())

    assert found(count) > 0.79
    assert found(count - max(2, count // 10)) < 0.8


def test_the_needed_tasks_are_those_of_the_textbook():
    """For many tasks ((1.95996 + 0.84162) s / d)**2, and 34 for half a standard deviation (Cohen 1988: 34)."""
    assert needed_tasks(0.5, Spread(0.1, 9, 10, 1.0)) == 34
    expected = ((1.959964 + 0.841621) * 0.1 / 0.001) ** 2
    assert needed_tasks(0.001, Spread(0.01 / 600, 599, 600, 0.01)) == pytest.approx(expected, rel=1e-3)
    assert needed_tasks(1e-9, Spread(0.01 / 600, 599, 600, 0.01)) is None


def test_the_needed_seeds_are_those_of_two_samples():
    """One standard deviation: 17 a side (Cohen 1988, table 2.4.1)."""
    assert needed_seeds(1.0, Spread(2 / 3, 4, 3, 2.0)) == 17
    assert needed_seeds(1.0, Spread(2 / 3, 4, 3, 2.0), rest=Spread(1.0, 99, 100, 100.0)) is None


def test_power_is_that_of_the_noncentral_t():
    expected = stats.nct.sf(stats.t.ppf(0.975, 9), 9, 0.5 / 0.2) + stats.nct.cdf(stats.t.ppf(0.025, 9), 9, 0.5 / 0.2)
    assert power(-0.5, Spread(0.04, 9)) == pytest.approx(expected)
    assert power(0.5, Spread(0.0, 9)) == 1.0
    assert power(0.0, Spread(0.04, 9)) == pytest.approx(0.05)


def test_power_is_a_number_where_the_far_tail_is_beyond_scipy():
    """Ten standard errors: certain with many degrees of freedom, far from it with one (critical value 12.7)."""
    assert power(1.0, Spread(0.01, 1000)) == pytest.approx(1.0)
    random = np.random.default_rng(3)
    shifted = (10 + random.normal(size=200_000)) / np.abs(random.normal(size=200_000))
    assert power(1.0, Spread(0.01, 1)) == pytest.approx((np.abs(shifted) > 12.7062).mean(), abs=0.005)


@pytest.mark.parametrize("rest", [None, Spread(2e-6, 3.0)])
def test_the_search_finds_the_first_count_that_is_enough(rest):
    """Against trying every count in turn."""
    for variance in (0.002, 0.01, 0.03):

        def enough(count: int, variance: float = variance) -> bool:
            own = Spread(variance / count, count - 1)
            return power(0.01, own if rest is None else sum_of([own, rest])) >= 0.8

        first = next(count for count in range(20, 5000) if enough(count))
        assert needed_tasks(0.01, Spread(variance / 20, 19, 20, variance), rest=rest) == first


def test_more_episodes_for_single_runs_and_more_seeds_where_seeds_vary_more():
    random = np.random.default_rng(2)
    first, second = random.normal(0.8, 0.1, (1, 100)), random.normal(0.79, 0.1, (1, 100))
    single = with_needs(paired_difference(first, second), tasks_are_fixed=False)
    assert not single.told_apart
    assert single.more_tasks > 0
    assert single.more_seeds is None
    fixed = with_needs(paired_difference(first, second), tasks_are_fixed=True)
    assert (fixed.more_tasks, fixed.more_seeds) == (None, None)
    shared = random.normal(0.8, 0.001, 100)
    seeds = [shared + np.array([[0.02], [0.0], [-0.03]]) + shift for shift in (0.0, 0.01)]
    several = with_needs(paired_difference(*seeds), tasks_are_fixed=False)
    assert several.more_tasks is None
    assert several.more_seeds > 0
    told = with_needs(Difference(0.5, 0.1, 0.001, over_tasks=Spread(1.0, 9, 10, 1.0)), tasks_are_fixed=False)
    assert (told.more_tasks, told.more_seeds) == (None, None)
