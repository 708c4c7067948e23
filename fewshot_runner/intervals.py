"""Intervals of the mean of independent figures.

Shapes: T tasks.
"""

from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # of two-sided tests, hence 95 % intervals
SINGLE_ANSWERS = ("images", "pairs", "queries")  # of the units that tasks have; a probe earns by its rank


def t_interval(values: np.ndarray) -> float | None:
    """Half the width of Student's 95 % interval for the mean of independent `values` (T,); None for fewer than two."""
    from scipy.special import stdtrit  # late: commands that evaluate nothing need no scipy

    if len(values) < 2:
        return None
    quantile = stdtrit(len(values) - 1, 1 - LEVEL / 2)
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def wilson_interval(values: np.ndarray) -> float:
    """Half the width of a 95 % interval for the share of right ones among `values` (T,): ones, zeros, and parts of one
    where an answer is a tie, which vary less than the interval allows for.

    Wilson's score interval (1927) is not symmetric about the share: its farther end counts. So a test without a
    mistake has an interval as well.
    """
    count, share, z = len(values), float(values.mean(dtype=float)), NormalDist().inv_cdf(1 - LEVEL / 2)
    middle = (share * count + z**2 / 2) / (count + z**2)
    return abs(middle - share) + z * (share * (1 - share) * count + z**2 / 4) ** 0.5 / (count + z**2)


def interval(values: np.ndarray, *, unit: str) -> float | None:
    """Half the width of the 95 % interval of the mean over tasks (T,), each a `unit`; None for fewer than two.

    Wilson's where a task is a single answer, right or wrong, else Student's. Where every task is flawless, or none
    earns anything, Student's would have no width: then Wilson's bounds the share of other tasks, and is far too wide
    where a mistake costs but a little of one.
    """
    if len(values) < 2:
        return None
    extreme = values.min() == values.max() and values[0] in (0, 1)
    return wilson_interval(values) if unit in SINGLE_ANSWERS or extreme else t_interval(values)
