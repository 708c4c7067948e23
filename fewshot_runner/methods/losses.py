"""Losses that several methods share, and what they are made of.

Shapes: B images.
"""

import torch
from torch import Tensor
from torch.nn import functional


def weighted_mean(terms: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of `terms` under `weights` (of one shape; booleans count), 0 without any; and whether there is any."""
    weights = weights.to(terms.dtype)
    total = weights.sum()
    return (terms * weights).sum() / total.clamp(min=1), (total > 0).to(terms.dtype)


def one_shot_loss(similarity: Tensor, labels: Tensor) -> Tensor:
    """The mean over all pairs (query, support) of one class of the one-shot cross-entropy, from (B, B) similarities.

    The other classes of the batch compete with the expected weight of a random image of theirs. A batch without a
    pair of one class gives 0.
    """
    same = labels[:, None] == labels  # (B, B)
    class_sizes = same.sum(dim=0)  # (B,) images of the class that each image belongs to
    others = (similarity - class_sizes.log()).masked_fill(same, float("-inf")).logsumexp(dim=1)  # (B,)
    pairs = same ^ torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    losses = functional.softplus(others[:, None] - similarity)  # (B, B): -log(s / (s + others))
    return torch.where(pairs, losses, 0).sum() / pairs.sum().clamp(min=1)
