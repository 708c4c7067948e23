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


def power_of(mean: float, over_tasks: Spread, over_seeds: Spread, n_tasks: float, n_seeds: float) -> float:
    """Of a Welch-Satterthwaite test, by scipy.stats."""
    tasks, seeds = over_tasks.single / n_tasks, over_seeds.single / n_seeds
    variance = tasks + seeds
    freedom = variance**2 / (tasks**2 / (n_tasks - 1) + seeds**2 / (2 * (n_seeds - 1)))
    shift, critical = abs(mean) / variance**0.5, stats.t.ppf(0.975, freedom)
    return stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)


@pytest.mark.parametrize("deviation", [0.0386, 0.05, 0.02])
def test_where_neither_more_tasks_nor_more_seeds_are_enough_both_are_told(deviation):
    """Two methods, three seeds each, 200 episodes, 0.78 points apart."""
    mean, n_tasks, n_seeds = -0.0078, 200, 3
    over_tasks = Spread(0.08**2 / n_tasks, n_tasks - 1, n_tasks, 0.08**2)
    over_seeds = Spread(2 * deviation**2 / n_seeds, 2 * (n_seeds - 1), n_seeds, 2 * deviation**2)

    def enough(tasks: float, seeds: float) -> bool:
        return power_of(mean, over_tasks, over_seeds, tasks, seeds) >= 0.8

    assert not enough(1e7, n_seeds)
    assert not enough(n_tasks, 1000)
    found = with_needs(Difference(mean, 0.1, 0.5, None, over_tasks, over_seeds), tasks_are_fixed=False)
    tasks, seeds = n_tasks + found.more_tasks, n_seeds + found.more_seeds
    assert enough(tasks, seeds)
    assert not enough(tasks, seeds - 1)
    fewest = next(count for count in range(2, 1001) if enough(1e7, count))
    assert seeds <= 1.15 * fewest + 1  # trained networks are dear, tasks are cheap
    assert tasks < 20_000
    fixed = with_needs(Difference(mean, 0.1, 0.5, None, over_tasks, over_seeds), tasks_are_fixed=True)
    assert (fixed.more_tasks, fixed.more_seeds) == (None, None)


def test_so_many_seeds_that_all_tasks_there_could_be_are_needed_are_told():
    """999 seeds would do with endless tasks, so a tenth more are out of reach, and the tasks have to be many."""
    seed_variance = next(v for v in np.geomspace(1e-3, 1e-1, 2000) if 960 < (2.801585 / 0.005) ** 2 * v < 1000)
    over_tasks = Spread(0.01 / 200, 199, 200, 0.01)
    over_seeds = Spread(seed_variance / 3, 4, 3, seed_variance)
    found = with_needs(Difference(0.005, 0.1, 0.5, None, over_tasks, over_seeds), tasks_are_fixed=False)
    tasks, seeds = 200 + found.more_tasks, 3 + found.more_seeds
    assert 960 < seeds <= 1000
    assert power_of(0.005, over_tasks, over_seeds, tasks, seeds) >= 0.8
    far = with_needs(Difference(0.004, 0.1, 0.5, None, over_tasks, over_seeds), tasks_are_fixed=False)
    assert (far.more_tasks, far.more_seeds) == (None, None)


def test_more_episodes_for_single_runs_and_more_seeds_where_seeds_vary_more():
    random = np.random.default_rng(2)
    first, second = random.normal(0.8, 0.1, (1, 100)), random.normal(0.79, 0.1, (1, 100))
    single = with_needs(paired_difference(first, second, unit="episodes"), tasks_are_fixed=False)
    assert not single.told_apart
    assert single.more_tasks > 0
    assert single.more_seeds is None
    fixed = with_needs(paired_difference(first, second, unit="episodes"), tasks_are_fixed=True)
    assert (fixed.more_tasks, fixed.more_seeds) == (None, None)
    shared = random.normal(0.8, 0.001, 100)
    seeds = [shared + np.array([[0.02], [0.0], [-0.03]]) + shift for shift in (0.0, 0.01)]
    several = with_needs(paired_difference(*seeds, unit="episodes"), tasks_are_fixed=False)
    assert several.more_tasks is None
    assert several.more_seeds > 0
    told = with_needs(Difference(0.5, 0.1, 0.001, over_tasks=Spread(1.0, 9, 10, 1.0)), tasks_are_fixed=False)
    assert (told.more_tasks, told.more_seeds) == (None, None)


def power_of_signs(n_tasks: int, wins: float, losses: float) -> float:
    """Of McNemar's exact test, where each task is a win or a loss with these probabilities: by adding up."""
    n = np.arange(1, n_tasks + 1)
    most = stats.binom.ppf(0.025, n, 0.5) - 1  # of the rarer side, where the test finds a difference
    most += stats.binom.cdf(most + 1, n, 0.5) <= 0.025
    share = wins / (wins + losses)
    found = stats.binom.cdf(most, n, share) + stats.binom.cdf(most, n, 1 - share)
    return float(stats.binom.pmf(n, n_tasks, wins + losses) @ found)


@pytest.mark.parametrize(
    ("wins", "losses", "ties"),
    [(5, 0, 1), (4, 0, 6), (5, 1, 14), (12, 6, 82), (60, 45, 895), (3, 0, 0), (4, 0, 2), (5, 0, 3)],
)
def test_the_needed_pairs_reach_the_power_of_the_sign_test(wins, losses, ties):
    counts = (wins, losses, ties)
    sides = [np.repeat(each, counts)[None] for each in ([1.0, 0.0, 1.0], [0.0, 1.0, 1.0])]
    found = with_needs(paired_difference(*sides, unit="images"), tasks_are_fixed=False)
    n_tasks = sum(counts) + found.more_tasks
    chances = wins / sum(counts), losses / sum(counts)
    assert power_of_signs(n_tasks, *chances) > 0.78
    assert power_of_signs(int(0.85 * n_tasks), *chances) < 0.8
