"""Accuracy with ties, and intervals, against hand arithmetic and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fewshot_runner.engine.metrics import query_accuracy, t_interval, wilson_interval

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("logits", "label", "earned"),
    [
        ([1.0, 3.0, 2.0], 1, 1),
        ([1.0, 3.0, 2.0], 2, 0),
        ([3.0, 3.0, 2.0], 0, 1 / 2),
        ([3.0, 3.0, 2.0], 1, 1 / 2),
        ([3.0, 3.0, 2.0], 2, 0),
        ([2.0, 2.0, 2.0], 0, 1 / 3),
        ([2.0, 2.0, 2.0], 2, 1 / 3),
        ([0.0, -0.0, -1.0], 1, 1 / 2),
        ([-INF, -INF, -INF], 1, 1 / 3),
        ([INF, INF, 0.0], 1, 1 / 2),
        ([NAN, NAN, NAN], 0, 0),
        ([NAN, 1.0, 2.0], 0, 0),
        ([NAN, 1.0, 2.0], 2, 0),
    ],
)
def test_trap_01_a_tie_among_k_earns_one_in_k_and_nan_nothing(logits: list, label: int, earned: float) -> None:
    accuracy = query_accuracy(torch.tensor([[logits]]), torch.tensor([[label]]))
    assert accuracy.tolist() == [[earned]]


@pytest.mark.parametrize("n_way", [2, 3, 5, 7, 20, 659])
def test_trap_01_constant_output_scores_exactly_one_in_n(n_way: int) -> None:
    """Also where the right class always stands first, on which an argmax would score 100 %."""
    labels = torch.zeros(2, 4, dtype=torch.long)
    accuracy = query_accuracy(torch.full((2, 4, n_way), 0.25), labels)
    assert accuracy.dtype == torch.float64
    assert accuracy.tolist() == [[1 / n_way] * 4] * 2


def test_each_episode_has_its_own_accuracy() -> None:
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [1.0, 0.0]]])
    labels = torch.tensor([[0, 0], [0, 1], [0, 1]])
    assert query_accuracy(logits, labels).mean(dim=-1).tolist() == [1.0, 0.75, 0.0]


def test_trap_12_interval_by_hand() -> None:
    """0.6, 0.8, 0.7, 0.9: mean 0.75, squares 0.0225 + 0.0025 + 0.0025 + 0.0225 = 0.05, so s^2 = 0.05 / 3.

    With t(0.975, 3) = 3.182446 from a printed table, the half width is 3.182446 sqrt(0.0166667 / 4) = 0.205426.
    """
    assert t_interval(np.array([0.6, 0.8, 0.7, 0.9])) == pytest.approx(0.205426, abs=1e-6)


def test_trap_12_interval_shrinks_with_the_square_root_of_the_episodes() -> None:
    values = np.array([0.2, 0.4] * 500)
    # s is almost 0.1 and t almost 1.96: 1.96 * 0.1 / sqrt(1000)
    assert t_interval(values) == pytest.approx(1.96 * 0.1 / math.sqrt(1000), rel=5e-3)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 5, 600])
def test_trap_12_interval_equals_scipys(count: int, confidence: float) -> None:
    values = np.random.default_rng(count).random(count)
    low, high = stats.t.interval(confidence, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values, confidence) == pytest.approx((high - low) / 2, rel=1e-9)


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
