"""Differences between runs; expected values from scipy.stats, by hand, and from simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from fewshot_runner.report.statistics import holm, paired_difference, unpaired_difference

RANDOM = np.random.default_rng(5)
FIRST = np.clip(RANDOM.normal(0.8, 0.1, 40), 0, 1)
SECOND = np.clip(FIRST - 0.02 + RANDOM.normal(0, 0.05, 40), 0, 1)


def test_two_runs_are_compared_by_the_paired_t_test():
    expected = stats.ttest_rel(FIRST, SECOND)
    difference = paired_difference(FIRST[None], SECOND[None], unit="episodes")
    assert difference.mean == pytest.approx(expected.statistic * stats.sem(FIRST - SECOND))
    assert difference.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert difference.ci95 == pytest.approx((high - low) / 2)
    assert difference.over_seeds is None


def test_runs_on_different_tasks_are_compared_by_welch():
    expected = stats.ttest_ind(FIRST, SECOND[:25], equal_var=False)
    difference = unpaired_difference(FIRST[None], SECOND[None, :25])
    assert difference.p == pytest.approx(expected.pvalue)
    assert not difference.paired
    low, high = expected.confidence_interval(0.95)
    assert difference.ci95 == pytest.approx((high - low) / 2)


def test_runs_that_are_the_same_do_not_differ():
    same = paired_difference(FIRST[None], FIRST[None].copy(), unit="episodes")
    assert (same.mean, same.p, same.told_apart) == (0.0, 1.0, False)
    shifted = paired_difference(FIRST[None] - 0.25, FIRST[None], unit="episodes")
    assert shifted.told_apart
    assert shifted.mean == pytest.approx(-0.25)


@pytest.mark.parametrize(("n_tasks", "p"), [(2, 0.5), (3, 0.25), (20, 2.0**-19)])
def test_the_same_difference_on_a_few_tasks_is_a_few_tosses_of_a_coin(n_tasks, p):
    """By counting: of 2^T ways in which T coins fall, two have all alike."""
    difference = paired_difference(np.full((1, n_tasks), 0.5), np.full((1, n_tasks), 0.25), unit="episodes")
    assert difference.p == p == 2 / 2**n_tasks
    assert difference.told_apart == (p < 0.05)


def test_differences_that_are_the_same_but_for_rounding_are_tosses_of_a_coin():
    first, second = (np.array([row], dtype=np.float32) for row in ((0.8, 0.6, 1.0), (0.6, 0.4, 0.8)))
    assert paired_difference(first, second, unit="episodes").p == 0.25  # of three coins, two ways of 8


@pytest.mark.parametrize(
    ("wins", "losses", "ties"), [(4, 0, 6), (5, 0, 1), (6, 0, 4), (6, 0, 994), (7, 1, 92), (3, 3, 4), (9, 2, 0)]
)
def test_right_or_wrong_answers_are_compared_by_those_that_one_alone_got_right(wins, losses, ties):
    """McNemar's exact test, by adding up binomial coefficients."""
    first, second = (np.repeat(each, (wins, losses, ties))[None] for each in ([1.0, 0.0, 1.0], [0.0, 1.0, 1.0]))
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n
    difference = paired_difference(first, second, unit="images")
    assert difference.p == pytest.approx(min(1.0, 2 * tail))
    assert difference.mean == pytest.approx((wins - losses) / (n + ties))
    assert (abs(difference.mean) > difference.ci95) == (difference.p < 0.05) == difference.told_apart
    assert paired_difference(second, first, unit="images").ci95 == pytest.approx(difference.ci95)


def test_a_tie_among_single_answers_leaves_them_their_test():
    """Five wins, and a sixth task of which one earns a half: six coins fall alike in two ways of 64."""
    first, second = np.ones((1, 10)), np.ones((1, 10))
    second[0, :6] = [0, 0, 0, 0, 0, 0.5]
    assert paired_difference(first, second, unit="images").p == 2 / 64
    assert paired_difference(first, second, unit="episodes").p < 0.02


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_right_or_wrong_answers_are_told_apart_no_more_often_than_the_level_allows(share):
    """By adding up all ways in which two that are equally good may answer 8 tasks, of which either alone gets each
    right with the probability `share` / 2; where that is 0.45, the t-test finds a difference in 8 of 100.
    """
    found = missed = 0.0
    for wins, losses in ((w, k) for w in range(9) for k in range(9 - w)):
        ways = math.comb(8, wins) * math.comb(8 - wins, losses)
        chance = ways * (share / 2) ** (wins + losses) * (1 - share) ** (8 - wins - losses)
        counts = (wins, losses, 8 - wins - losses)
        difference = paired_difference(
            *(np.repeat(each, counts)[None] for each in ([1.0, 0.0, 1.0], [0.0, 1.0, 1.0])), unit="images"
        )
        found += chance * difference.told_apart
        missed += chance * (abs(difference.mean) > difference.ci95)
    assert found <= 0.05
    assert missed <= 0.05


@pytest.mark.parametrize("n_seeds", [(1, 1), (2, 3)])
def test_runs_without_a_mistake_may_differ_on_other_tasks(n_seeds):
    """None of 10 tasks differs, so by Wilson's formula up to z^2 / (10 + z^2) of all may: 3.8415 / 13.8415."""
    difference = paired_difference(*(np.ones((n, 10)) for n in n_seeds), unit="images")
    assert (difference.mean, difference.p) == (0.0, 1.0)
    assert difference.ci95 == pytest.approx(3.8415 / 13.8415, abs=1e-5)


def test_one_task_says_nothing_of_others():
    difference = paired_difference(np.array([[0.5]]), np.array([[0.7]]), unit="episodes")
    assert difference.mean == pytest.approx(-0.2)
    assert difference.ci95 is None
    assert difference.p is None


def test_several_seeds_add_the_variance_over_seeds_by_hand():
    first = np.array([[0.9, 0.8, 0.7, 0.6], [0.7, 0.8, 0.9, 0.8], [0.8, 0.9, 0.8, 0.6]])
    second = np.array([[0.5, 0.6, 0.7, 0.4], [0.6, 0.6, 0.5, 0.7]])
    difference = paired_difference(first, second, unit="episodes")
    by_task = [sum(column) / 3 - sum(other) / 2 for column, other in zip(first.T, second.T, strict=True)]
    mean = sum(by_task) / 4
    over_tasks = sum((each - mean) ** 2 for each in by_task) / 3 / 4
    runs = [[sum(row) / 4 for row in side] for side in (first, second)]
    variances = [sum((each - sum(side) / len(side)) ** 2 for each in side) / (len(side) - 1) for side in runs]
    parts = [(over_tasks, 3), (variances[0] / 3, 2), (variances[1] / 2, 1)]
    total = sum(variance for variance, _ in parts)
    seeds_freedom = sum(v for v, _ in parts[1:]) ** 2 / sum(v**2 / f for v, f in parts[1:])
    freedom = total**2 / (over_tasks**2 / 3 + sum(v for v, _ in parts[1:]) ** 2 / seeds_freedom)
    assert difference.mean == pytest.approx(mean)
    assert difference.ci95 == pytest.approx(stats.t.ppf(0.975, freedom) * total**0.5)
    assert difference.p == pytest.approx(2 * stats.t.sf(abs(mean) / total**0.5, freedom))


def test_a_single_run_is_taken_to_vary_as_the_seeds_of_the_other_side():
    several = np.stack([FIRST, FIRST + 0.03, FIRST - 0.04])
    spread = paired_difference(several, SECOND[None], unit="episodes").over_seeds
    variance = several.mean(axis=1).var(ddof=1)
    assert spread.variance == pytest.approx(variance / 3 + variance)
    assert spread.freedom == 2
    assert spread.single == pytest.approx(2 * variance)


def test_trap_13_intervals_over_seeds_cover_the_truth_and_those_over_episodes_alone_do_not():
    """Two experiments that are equally good, 3 seeds each, 200 shared episodes; seeds differ by 2 points."""
    random = np.random.default_rng(0)
    covered = fooled = 0
    trials = 400
    for _ in range(trials):
        hardness = random.normal(0, 0.1, 200)
        sides = [
            0.8 + hardness + random.normal(0, 0.02, (3, 1)) + random.normal(0, 0.05, (3, 200)) for _ in range(2)
        ]  # fmt: skip
        difference = paired_difference(*sides, unit="episodes")
        covered += abs(difference.mean) <= difference.ci95
        fooled += stats.ttest_rel(sides[0][0], sides[1][0]).pvalue < 0.05
    assert 0.93 <= covered / trials <= 1.0
    assert fooled / trials > 0.4  # a single pair of runs, tested over episodes alone


@pytest.mark.parametrize(
    ("seeds", "spreads"),
    [
        ((1, 2), (0.2, 0.2)), ((3, 1), (0.2, 0.2)), ((2, 2), (0.2, 0.2)),
        ((2, 20), (0.2, 0.2)), ((10, 3), (0.2, 0.2)), ((20, 3), (0.1, 0.4)), ((3, 20), (0.1, 0.4)),
    ],
)  # fmt: skip
def test_what_does_not_differ_is_told_apart_no_more_often_than_the_level_allows(seeds, spreads):
    """Few seeds against many: how far a run varies with its seed is hardly known from the few, and from the many
    only if both vary alike.
    """
    random = np.random.default_rng(1)
    trials = 1000
    found = 0
    for _ in range(trials):
        hardness = random.normal(0, 1, 300)
        sides = [
            hardness + random.normal(0, spread, (n, 1)) + random.normal(0, 0.4, (n, 300))
            for n, spread in zip(seeds, spreads, strict=True)
        ]
        found += paired_difference(*sides, unit="episodes").told_apart
    assert found / trials < 0.07


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_against_the_best_counts_all_pairs():
    """Of four, three tests are shown and three are not: 6 p, 5 p, 4 p."""
    assert holm([0.01, 0.04, None, 0.03], of_best=True) == pytest.approx([0.06, 0.16, None, 0.15], nan_ok=True)
    assert holm([0.01], of_best=True) == [0.01]


def test_trap_13_among_equals_the_best_stands_out_no_more_often_than_the_level_allows():
    """Ten equal experiments on 200 tasks: to be the best of ten is no merit. Without regard to it: 15 in 100."""
    random = np.random.default_rng(2)
    trials, found = 300, 0
    for _ in range(trials):
        figures = random.normal(0, 0.1, 200) + random.normal(0, 0.1, (10, 200))
        order = figures.mean(axis=1).argsort()[::-1]
        ps = [paired_difference(figures[[k]], figures[order[:1]], unit="episodes").p for k in order[1:]]
        found += min(holm(ps, of_best=True)) < 0.05
    assert found / trials < 0.08
