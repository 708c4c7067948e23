"""Heads that turn two embeddings into the logit of "same class", for given pairs or for all pairs of two sets.

Shapes: D features; any leading dimensions.
"""

import torch
from torch import Tensor, nn

from fewshot_runner.models.precision import full_precision


class WeightedL1(nn.Module):
    """A threshold minus a weighted city-block distance: Koch et al.'s head, with weights that cannot turn negative.

    So it is a distance, and all pairs of two sets take one call of `torch.cdist`. The logit starts at about 4 for
    equal embeddings and falls by 10 times the mean difference.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((features,), 10 / features))
        self.threshold = nn.Parameter(torch.tensor(4.0))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two broadcastable (..., D) to (...)."""
        return self.threshold - ((first - second) * self.weight).abs().sum(-1)

    def all_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., A, D) and (..., B, D) to (..., A, B)."""
        return self.threshold - torch.cdist(first * self.weight, second * self.weight, p=1)


class DifferenceMlp(nn.Module):
    """A hidden layer over the absolute differences, as in a well-known siamese tutorial."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two broadcastable (..., D) to (...)."""
        with full_precision(first):
            return self.layers((first - second).abs()).squeeze(-1)

    def all_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., A, D) and (..., B, D) to (..., A, B)."""
        # one row at a time: the differences of all pairs at once would not fit for hundreds of classes
        return torch.stack([self(row.unsqueeze(-2), second) for row in first.unbind(-2)], dim=-2)
