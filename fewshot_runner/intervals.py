"""Intervals of the mean of independent figures.

Shapes: T tasks.
"""

import numpy as np

LEVEL = 0.05  # of two-sided tests, hence 95 % intervals


def t_interval(values: np.ndarray) -> float | None:
    """Half the width of Student's 95 % interval for the mean of independent `values` (T,); None for fewer than two."""
    from scipy.special import stdtrit  # late: commands that evaluate nothing need no scipy

    if len(values) < 2:
        return None
    quantile = stdtrit(len(values) - 1, 1 - LEVEL / 2)
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def wilson_interval(values: np.ndarray) -> float:
    """Half the width of a 95 % interval for the share of ones among `values` (T,), zeros and ones.

    Wilson's score interval (1927) is not symmetric about the share: its farther end counts. So a test without a
    mistake has an interval as well.
    """
    from scipy.stats import binomtest  # late: commands that evaluate nothing need no scipy

    right = int(values.sum())
    ends = binomtest(right, len(values)).proportion_ci(1 - LEVEL, method="wilson")
    return float(max(ends.high - right / len(values), right / len(values) - ends.low))


def interval(values: np.ndarray) -> float | None:
    """Half the width of the 95 % interval of the mean over tasks (T,).

    Wilson's where every value is 0 or 1, else Student's.
    """
    if len(values) > 1 and np.isin(values, (0.0, 1.0)).all():
        return wilson_interval(values)
    return t_interval(values)
