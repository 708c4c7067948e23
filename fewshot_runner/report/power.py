"""How many more tasks or seeds it would take to tell two experiments apart.

The measured difference is taken for the true one, and its variances for the true variances: so a count is as rough as
what it is made from. Asked for is a power of 0.8 (Cohen 1988) of the two-sided test at the level 0.05, or of each of
several at 0.05 over their number, with which Holm's method begins.

The variance over tasks is held at what it is with the seeds there are. A part of it is the runs' own noise, which more
seeds average out: so a count of seeds is an upper bound.

Counts are those of a t-test. The exact sign test goes by whole tasks: it needs about 1 / |difference| more, and finds
nothing on so few that coins would all fall alike as often as the level allows.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import ceil, inf, log2
from statistics import NormalDist

from fewshot_runner.intervals import LEVEL
from fewshot_runner.report.statistics import Difference, Spread, quantile, sum_of

POWER = 0.8
MOST_TASKS, MOST_SEEDS = 10_000_000, 1000  # that anybody could want


def with_needs(difference: Difference, *, tasks_are_fixed: bool, level: float = LEVEL) -> Difference:
    """Adds what it would take to tell the two apart with the power 0.8, were the difference as it was measured."""
    over_tasks, over_seeds = difference.over_tasks, difference.over_seeds
    if difference.told_apart or difference.mean == 0 or over_tasks is None or difference.ci95 in (0.0, None):
        return difference
    seeds_vary = over_seeds is not None and over_seeds.variance > 0
    seeds_first = tasks_are_fixed or (seeds_vary and over_seeds.variance > over_tasks.variance)
    n_tasks = n_seeds = None
    if seeds_vary and seeds_first:
        n_seeds = needed_seeds(difference.mean, over_seeds, rest=over_tasks, level=level)
    if n_seeds is None and not tasks_are_fixed:
        n_tasks = needed_tasks(difference.mean, over_tasks, rest=over_seeds, level=level)
    if n_tasks is None and n_seeds is None and seeds_vary:
        n_seeds = needed_seeds(difference.mean, over_seeds, rest=over_tasks, level=level)
        if n_seeds is None and not tasks_are_fixed:
            n_tasks, n_seeds = needed_both(difference.mean, over_tasks, over_seeds, level=level) or (None, None)
    if n_tasks is not None and difference.by_sign:
        differing = over_tasks.single * (1 - 1 / over_tasks.count) + difference.mean**2  # the share of such tasks
        n_tasks = max(n_tasks, ceil((1 - log2(level)) / differing)) + ceil(1 / abs(difference.mean))
    return replace(
        difference,
        more_tasks=None if n_tasks is None else n_tasks - over_tasks.count,
        more_seeds=None if n_seeds is None else n_seeds - over_seeds.count,
    )


def needed_tasks(mean: float, over_tasks: Spread, *, rest: Spread | None = None, level: float = LEVEL) -> int | None:
    """The number of tasks at which the power is reached, while the variance over seeds stays as it is."""

    def at(count: int) -> Spread:
        return Spread(over_tasks.single / count, count - 1)

    return _smallest(mean, at, rest, start=over_tasks.count, most=MOST_TASKS, level=level)


def needed_seeds(mean: float, over_seeds: Spread, *, rest: Spread | None = None, level: float = LEVEL) -> int | None:
    """The number of seeds on each side at which the power is reached, on the same tasks."""

    def at(count: int) -> Spread:
        return Spread(over_seeds.single / count, 2 * (count - 1))

    return _smallest(mean, at, rest, start=max(2, over_seeds.count), most=MOST_SEEDS, level=level)


def needed_both(mean: float, over_tasks: Spread, over_seeds: Spread, *, level: float = LEVEL) -> tuple[int, int] | None:
    """Numbers of tasks and of seeds at which the power is reached, where neither alone is enough.

    A seed is a training and a task is soon answered: so there are as many tasks as it takes to come within a tenth of
    the seeds that endless ones would need, or where even these are too many, as many as there can be.
    """
    room = (mean / normal_shift(level)) ** 2  # for the variances over tasks and over seeds together
    for n_tasks in (max(over_tasks.count, 1 + int(11 * over_tasks.single / room)), MOST_TASKS):
        rest = Spread(over_tasks.single / n_tasks, n_tasks - 1)
        n_seeds = needed_seeds(mean, over_seeds, rest=rest, level=level) if n_tasks <= MOST_TASKS else None
        if n_seeds is not None:
            return n_tasks, n_seeds
    return None


def _smallest(
    mean: float, at: Callable[[int], Spread], rest: Spread | None, *, start: int, most: int, level: float
) -> int | None:
    """The smallest count from `start` at which the power is reached, by doubling and halving; it grows with it.

    The search begins at the count that a normal distribution would need, as the t distribution needs no less.
    """

    def enough(count: int) -> bool:
        spread = sum_of([at(count), rest]) if rest is not None else at(count)
        return power(mean, spread, level=level) >= POWER

    room = (mean / normal_shift(level)) ** 2 - (0.0 if rest is None else rest.variance)
    least = 0.9999 * at(1).variance / room if room > 0 else inf  # a little less, for rounding
    if least > max(start, most):
        return None
    low = high = max(start, int(least))
    step = 1
    while not enough(high):
        if high >= most:
            return None
        low, high, step = high + 1, min(high + step, most), 2 * step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


@cache
def normal_shift(level: float) -> float:
    """How many standard errors a difference has to be for the power; 2.80 at the level 0.05."""
    return NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(POWER)


def power(mean: float, spread: Spread, *, level: float = LEVEL) -> float:
    """How often the two-sided test finds a difference whose true size is `mean`."""
    from scipy.special import nctdtr

    if spread.variance == 0:
        return 1.0
    shift = abs(mean) / spread.variance**0.5
    if shift > 30:  # beyond what the distribution is computed for, and beyond doubt
        return 1.0
    critical = quantile(1 - level / 2, spread.freedom)
    far_tail = nctdtr(spread.freedom, shift, -critical) if shift < 6 else 0.0  # below 1e-9, and soon nan in scipy
    return float(1 - nctdtr(spread.freedom, shift, critical) + far_tail)
