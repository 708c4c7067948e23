"""Which triplets of a batch count: anchor, positive (another image of its class), negative (one of another class).

Batches of P classes with K images each hold P K (K - 1) (P - 1) K triplets, most of which are soon learned. Each
function here takes the distances of all pairs of a batch and its labels, and gives the distances that the triplets
compare. An image that is the only one of its class is a negative of all others and no anchor: it has no positive.
Nothing is counted on the way, so a GPU is never waited for: shapes depend on B alone, and masks say what counts.

Sources: batch-all and batch-hard from "In Defense of the Triplet Loss" (Hermans, Beyer and Leibe 2017),
https://arxiv.org/abs/1703.07737; semi-hard from FaceNet (Schroff, Kalenichenko and Philbin 2015),
https://arxiv.org/abs/1503.03832.

Shapes: B images.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Triplets(NamedTuple):
    """Distances anchor-positive and anchor-negative, and whether that triplet exists; broadcastable to one shape.

    Where `exists` is false, the distances are finite and mean nothing.
    """

    positive: Tensor
    negative: Tensor
    exists: Tensor


def positives_and_negatives(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) masks: row an anchor, column its positives, or its negatives. Nothing is its own positive."""
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def batch_all(distances: Tensor, labels: Tensor) -> Triplets:
    """Every triplet, (B, B, B) by anchor, positive and negative: for batches of a hundred images or two."""
    positive, negative = positives_and_negatives(labels)
    return Triplets(distances[:, :, None], distances[:, None, :], positive[:, :, None] & negative[:, None, :])


def batch_hard(distances: Tensor, labels: Tensor) -> Triplets:
    """For each anchor its farthest positive and its nearest negative, (B,)."""
    positive, negative = positives_and_negatives(labels)
    values = distances.detach()
    farthest = torch.where(positive, values, float("-inf")).argmax(dim=1, keepdim=True)  # (B, 1)
    nearest = torch.where(negative, values, float("inf")).argmin(dim=1, keepdim=True)
    exists = positive.gather(1, farthest) & negative.gather(1, nearest)  # of no candidates, any column is chosen
    chosen = distances.gather(1, farthest), distances.gather(1, nearest), exists
    return Triplets(*(each.squeeze(1) for each in chosen))


def semi_hard(distances: Tensor, labels: Tensor) -> Triplets:
    """For each anchor and each of its positives, the nearest negative that is farther than the positive, (B, B).

    Such a negative is on the right side already, though perhaps by less than the margin. Where no negative is
    farther than the positive, the farthest negative stands in, the least wrong of them; FaceNet leaves this case open.
    """
    positive, negative = positives_and_negatives(labels)
    ordered = distances.masked_fill(~negative, float("inf")).sort(dim=1).values  # (B, B), the negatives first
    counts = negative.sum(dim=1, keepdim=True)  # (B, 1)
    farther = torch.searchsorted(ordered.detach(), distances.detach().contiguous(), right=True)  # (B, B)
    chosen = ordered.gather(1, torch.minimum(farther, counts - 1).clamp(min=0))  # (B, B)
    exists = positive & (counts > 0)
    return Triplets(torch.where(exists, distances, 0), torch.where(exists, chosen, 0), exists)


def random_triplets(distances: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Triplets:
    """For each anchor one positive and one negative, every one equally likely, (B,).

    Without a `generator` they come from torch's global one, which training seeds at every step.
    """
    positive, negative = positives_and_negatives(labels)
    draw = torch.rand(distances.shape, generator=generator, device=distances.device)  # (B, B)

    def drawn(candidates: Tensor) -> Tensor:
        return distances.gather(1, draw.masked_fill(~candidates, -1).argmax(dim=1, keepdim=True)).squeeze(1)

    exists = positive.any(dim=1) & negative.any(dim=1)
    return Triplets(drawn(positive), drawn(negative), exists)  # independent: no column is a candidate of both


MINING = {"random": random_triplets, "batch_all": batch_all, "batch_hard": batch_hard, "semi_hard": semi_hard}
