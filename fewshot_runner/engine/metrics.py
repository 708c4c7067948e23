"""Figures and their intervals."""

import numpy as np
from torch import Tensor


def episode_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """(E, Q, N) logits and (E, Q) labels to the accuracy of each episode, (E,) float64 on the CPU.

    The right class earns 1 where it alone has the largest logit, and 1/k in a tie of k classes: a network with
    constant output scores exactly 1/N. A logit that is not a number earns nothing.
    """
    logits, labels = logits.cpu(), labels.cpu()  # not every device has float64
    largest = logits.amax(dim=-1, keepdim=True)  # (E, Q, 1)
    is_largest = logits == largest  # (E, Q, N)
    right = is_largest.gather(-1, labels[..., None]).squeeze(-1)  # (E, Q)
    return (right.double() / is_largest.sum(dim=-1).clamp(min=1)).mean(dim=-1)


def t_interval(values: np.ndarray, confidence: float = 0.95) -> float | None:
    """Half the width of Student's interval for the mean of independent `values` (E,); None for fewer than two."""
    from scipy.special import stdtrit  # late: commands that evaluate nothing need no scipy

    if len(values) < 2:
        return None
    quantile = stdtrit(len(values) - 1, (1 + confidence) / 2)
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))
