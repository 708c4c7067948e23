"""Accuracy with ties, against hand arithmetic."""

import math

import pytest
import torch

from fewshot_runner.engine.metrics import query_accuracy

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
