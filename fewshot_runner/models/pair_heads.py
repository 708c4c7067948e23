"""Heads that turn two embeddings into the logit of "same class": for given pairs, all pairs of two sets, or of one.

Shapes: D features; any leading dimensions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.models.koch import initialise
from fewshot_runner.models.precision import full_precision

# Differences that go through a hidden layer at once, or those of one image with all others where these are more: enough
# for a fast matrix product, where those of all pairs of hundreds of classes would take tens of gigabytes.
ROWS_AT_ONCE = 1024


class WeightedL1(nn.Module):
    """A threshold minus a weighted city-block distance: like Koch et al.'s head, but no weight can turn negative.

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

    def pairs_within(self, features: Tensor) -> Tensor:
        """(B, D) to (B, B)."""
        return self.all_pairs(features, features)


class SignedL1(nn.Module):
    """Koch et al.'s own head: a linear layer over the absolute differences, whose weights may have either sign.

    So a difference may speak for "same class", and equal embeddings need not be the most alike. Initial values are
    the paper's for a linear layer: weights N(0, 0.2), bias N(0.5, 0.01).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features))
        self.bias = nn.Parameter(torch.empty(()))
        initialise(self.weight, self.bias, spread=0.2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two broadcastable (..., D) to (...)."""
        return self.bias + ((first - second).abs() * self.weight).sum(-1)

    def all_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., A, D) and (..., B, D) to (..., A, B)."""
        distances = [
            torch.cdist(first * weight, second * weight, p=1)
            for weight in (self.weight.clamp(min=0), (-self.weight).clamp(min=0))
        ]
        return self.bias + distances[0] - distances[1]

    def pairs_within(self, features: Tensor) -> Tensor:
        """(B, D) to (B, B)."""
        return self.all_pairs(features, features)


class DifferenceMlp(nn.Module):
    """A hidden layer over the absolute differences, as in a well-known siamese tutorial."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two broadcastable (..., D) to (...)."""
        first_layer, relu, last_layer = self.layers
        with full_precision(first):
            hidden = relu(first_layer((first - second).abs()))  # (..., hidden)
            if torch.is_grad_enabled():
                return last_layer(hidden).squeeze(-1)
            # row by row: a product with one vector rounds the last rows otherwise, which would decide what is a tie
            return (hidden * last_layer.weight[0]).sum(-1) + last_layer.bias

    def all_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., A, D) and (..., B, D) to (..., A, B)."""
        rows = max(1, ROWS_AT_ONCE // second.shape[:-1].numel())
        chunks = first.unsqueeze(-2).split(rows, dim=-3)  # each (..., rows, 1, D)
        return torch.cat([self(chunk, second.unsqueeze(-3)) for chunk in chunks], dim=-2)

    def pairs_within(self, features: Tensor) -> Tensor:
        """(B, D) to (B, B): all pairs of one set. Each is computed once, since the logit is the same both ways."""
        size = len(features)
        rows = max(1, ROWS_AT_ONCE // size)
        blocks = [self(features[at : at + rows, None], features[at:]) for at in range(0, size, rows)]  # (rows, B - at)
        upper = torch.cat([functional.pad(block, (size - block.shape[1], 0)) for block in blocks])
        return upper.triu() + upper.triu(1).T
