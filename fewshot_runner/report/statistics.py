"""Intervals, paired differences, and how much more would have to be measured.

Every run of a comparison answers the same tasks, so runs are compared task by task: what makes a task hard for all
drops out. Two things still vary. Another draw of tasks would give another difference (the variance over tasks), and so
would another seed of training (the variance over seeds). Their sum is that of the difference, with the degrees of
freedom of Satterthwaite (1946, https://doi.org/10.2307/3002019). A run's own noise counts in both, so intervals over
seeds are a little too wide rather than too narrow. Where each side has one run only, nothing is known of other seeds:
the test is then the paired t-test over tasks, and speaks of these two networks alone. Where a task is a single answer,
it is the exact sign test on the tasks that one of them got more right (McNemar 1947), as the t-test finds up to 9 in
100 differences of nothing on a few tasks.

Shapes: R runs (seeds), T tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import inf

import numpy as np

from fewshot_runner.intervals import LEVEL, SINGLE_ANSWERS, wilson_interval

ROUNDING = 1e-7  # of figures kept as float32


@dataclass(frozen=True)
class Spread:
    """A variance of a difference, and from how many degrees of freedom it is known.

    `count` is how many tasks or seeds there are, on the side that has the fewest; `single` would be the variance
    with one on each side.
    """

    variance: float
    freedom: float
    count: int = 0
    single: float = 0.0


@dataclass(frozen=True)
class Difference:
    """A mean difference. `ci95` is half the width of its interval; both it and `p` are None where nothing is known.
    `by_sign`, it was tested by its sign on each task.

    To tell the two apart: `more_tasks` or `more_seeds` (of each side that has the fewest), or both together; None
    where that many are not known, would not help, or are not needed.
    """

    mean: float
    ci95: float | None = None
    p: float | None = None
    p_holm: float | None = None
    over_tasks: Spread | None = None
    over_seeds: Spread | None = None
    paired: bool = True
    by_sign: bool = False
    more_tasks: int | None = None
    more_seeds: int | None = None

    @property
    def told_apart(self) -> bool:
        """By Holm's p where there is one."""
        p = self.p if self.p_holm is None else self.p_holm
        return p is not None and p < LEVEL


def paired_difference(first: np.ndarray, second: np.ndarray, *, unit: str) -> Difference:
    """(R, T) minus (R', T): figures of two experiments on the same T tasks, each a `unit`, a row a seed."""
    by_task = _by_task(first) - _by_task(second)  # (T,)
    over_tasks = _of_mean(by_task) if len(by_task) > 1 else None
    difference = Difference(_rounded(by_task.mean()), over_tasks=over_tasks, over_seeds=_over_seeds(first, second))
    single = len(first) == len(second) == 1 and len(by_task) > 1
    if single and by_task.any() and unit in SINGLE_ANSWERS:
        return _tested_by_sign(difference, by_task)
    return _tested(difference)


def unpaired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """(R, T) minus (R', T') on different tasks: Welch's test over tasks, and over seeds where there are some."""
    by_task = [_by_task(first), _by_task(second)]
    over_tasks = None
    if min(map(len, by_task)) > 1:
        over_tasks = sum_of(list(map(_of_mean, by_task)))
    mean = _rounded(by_task[0].mean() - by_task[1].mean())
    return _tested(Difference(mean, over_tasks=over_tasks, over_seeds=_over_seeds(first, second), paired=False))


def _by_task(figures: np.ndarray) -> np.ndarray:
    """(T,) the mean over seeds of (R, T); most experiments have one, of which a mean takes five times as long."""
    return figures[0].astype(float) if len(figures) == 1 else figures.mean(axis=0, dtype=float)


def _rounded(mean: float) -> float:
    return 0.0 if abs(mean) < ROUNDING else float(mean)


def _over_seeds(first: np.ndarray, second: np.ndarray) -> Spread | None:
    """Of the runs' means, by figures (R, T) and (R', T').

    Either all runs vary alike (a single run has no other way) and are pooled, or each side varies in its own way
    (Welch 1947). The first would rely on the side with more seeds where the other varies more; the second on a variance
    of two seeds, which happens to be next to nothing. So the one counts that says less.
    """
    sides = [_of_mean(side.mean(axis=1, dtype=float)) for side in (first, second) if len(side) > 1]
    if not sides:
        return None
    freedom = sum(side.freedom for side in sides)
    single = sum(side.single * side.freedom for side in sides) / freedom
    counts = len(first), len(second)
    pooled = Spread(single / counts[0] + single / counts[1], freedom, min(counts), 2 * single)
    return pooled if len(sides) == 1 else max(pooled, sum_of(sides), key=_width)


def _width(spread: Spread) -> float:
    """Half the width of its interval."""
    return quantile(1 - LEVEL / 2, spread.freedom) * spread.variance**0.5


def _of_mean(values: np.ndarray) -> Spread:
    """Of the mean of independent `values` (n,), n > 1."""
    single, count = float(values.var(ddof=1)), len(values)
    return Spread(single / count, count - 1, count, single)


def sum_of(spreads: Sequence[Spread]) -> Spread:
    """Of independent parts, by Satterthwaite; the smallest count stands for all.

    What is known of one side alone is no estimate of its own for the other. Where it happens to come out small,
    Satterthwaite's formula would forget how little is known: 12 in 100 differences of nothing would be found at the
    level 0.05 (one seed against two). So its degrees of freedom are all that there are.
    """
    variance = weight = freedom = single = 0.0
    for spread in spreads:
        variance += spread.variance
        weight += spread.variance**2 / spread.freedom
        freedom += spread.freedom
        single += spread.single
    count = min(spread.count for spread in spreads)
    known = min((spread.freedom for spread in spreads if spread.count == 1), default=inf)
    return Spread(variance, min(known, variance**2 / weight if weight else freedom), count, single)


def _tested(difference: Difference) -> Difference:
    from scipy.special import stdtr  # late: takes a third of a second

    spreads = [spread for spread in (difference.over_tasks, difference.over_seeds) if spread is not None]
    if difference.over_tasks is None:  # one task says nothing of others
        return difference
    total = sum_of(spreads)
    error = total.variance**0.5
    if error < ROUNDING and difference.mean == 0:  # on other tasks they may differ, on how many Wilson's interval says
        return replace(difference, ci95=wilson_interval(np.zeros(difference.over_tasks.count)), p=1.0)
    if error < ROUNDING:  # the same on each: as likely as that many tosses of a coin which all fall alike
        return replace(difference, ci95=0.0, p=2.0 ** (1 - total.count))
    p = 2 * float(stdtr(total.freedom, -abs(difference.mean) / error))
    return replace(difference, ci95=_width(total), p=p)


def _tested_by_sign(difference: Difference, by_task: np.ndarray) -> Difference:
    """By the signs of what the first earns more of each task (T,); at least one is not 0.

    The interval of the share that the first won among these (Clopper and Pearson 1934) covers 0 where the test
    finds nothing, and Student's counts with another number of them: the wider one is taken.
    """
    from scipy.stats import binomtest  # late: takes a third of a second

    differing = by_task != 0
    test = binomtest(int((by_task > 0).sum()), int(differing.sum()))
    ends = 2 * np.array(test.proportion_ci(1 - LEVEL, method="exact")) - 1
    by_sign = float(np.abs(ends * differing.mean() - difference.mean).max())
    return replace(difference, ci95=max(by_sign, _width(difference.over_tasks)), p=float(test.pvalue), by_sign=True)


def count_tests(ps: Sequence[float | None], *, of_best: bool = False) -> int:
    """How many tests are made at once; those of None are none.

    With `of_best`, what all are tested against is the best of them: it was chosen by its figure, so the tests made are
    those of all pairs, of which the others are not shown.
    """
    count = sum(p is not None for p in ps)
    return count * (count + 1) // 2 if of_best else count


def holm(ps: Sequence[float | None], *, of_best: bool = False) -> list[float | None]:
    """Holm's (1979) p-values for as many tests as `count_tests` says; None stays None.

    The rank of those that are not shown counts among those that are, which is cautious.
    """
    order = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    n_tests = count_tests(ps, of_best=of_best)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, k) in enumerate(order):
        largest = max(largest, min(1.0, p * (n_tests - rank)))
        adjusted[k] = largest
    return adjusted


@cache
def quantile(share: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
