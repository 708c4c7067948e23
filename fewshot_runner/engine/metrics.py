"""Figures and their intervals."""

import numpy as np
from torch import Tensor


def query_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """(..., N) logits and (...) labels to what each query earns, (...) float64 on the CPU.

    The right class earns 1 where it alone has the largest logit, and 1/k in a tie of k classes: a network with
    constant output scores exactly 1/N. A logit that is not a number earns nothing.
    """
    logits, labels = logits.cpu(), labels.cpu()  # not every device has float64
    largest = logits.amax(dim=-1, keepdim=True)  # (..., 1)
    is_largest = logits == largest  # (..., N)
    right = is_largest.gather(-1, labels[..., None]).squeeze(-1)  # (...)
    return right.double() / is_largest.sum(dim=-1).clamp(min=1)


def t_interval(values: np.ndarray, confidence: float = 0.95) -> float | None:
    """Half the width of Student's interval for the mean of independent `values` (E,); None for fewer than two."""
    from scipy.special import stdtrit  # late: commands that evaluate nothing need no scipy

    if len(values) < 2:
        return None
    quantile = stdtrit(len(values) - 1, (1 + confidence) / 2)
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def wilson_interval(values: np.ndarray, confidence: float = 0.95) -> float:
    """Half the width of an interval for the share of ones among `values` (T,), zeros and ones.

    Wilson's score interval (1927) is not symmetric about the share: its farther end counts. So a test without a
    mistake has an interval as well.
    """
    from scipy.stats import binomtest  # late: commands that evaluate nothing need no scipy

    right = int(values.sum())
    ends = binomtest(right, len(values)).proportion_ci(confidence, method="wilson")
    return float(max(ends.high - right / len(values), right / len(values) - ends.low))
