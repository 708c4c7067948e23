"""How far embeddings lie apart, and what that says of a query: its nearest neighbour among the support images.

"l2" is the Euclidean distance (not its square), "cosine" 1 minus the cosine, from 0 to 2.

Shapes: E episodes, N ways, S support images, Q queries, D features; A and B images, any leading dimensions.
"""

import torch
from torch import Tensor

from fewshot_runner.errors import UserError
from fewshot_runner.models.precision import full_precision

DISTANCES = ("cosine", "l2")
LOGITS_PER_DISTANCE = {"cosine": 10.0, "l2": 1.0}  # see `nearest_support`


def check_distance(distance: str) -> str:
    if distance not in DISTANCES:
        raise UserError(f"distance={distance}: choose {' or '.join(DISTANCES)}")
    return distance


def all_distances(first: Tensor, second: Tensor, distance: str) -> Tensor:
    """(..., A, D) and (..., B, D) to (..., A, B)."""
    if distance == "l2":
        return root(all_squared_distances(first, second))
    with full_precision(first):
        return 1 - unit(first) @ unit(second).mT


def all_squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """(..., A, D) and (..., B, D) to (..., A, B), Euclidean.

    They come from squares and products, which would swallow what sets apart points that lie close together and far from
    the origin; so all points are moved to it first.
    """
    with full_precision(first):
        centre = first.detach().mean(dim=-2, keepdim=True)  # no distance depends on it, so no gradient does
        first, second = first - centre, second - centre
        squares = first.square().sum(-1)[..., :, None] + second.square().sum(-1)[..., None, :]
        return squares - (2 * first) @ second.mT


def distances_pair_by_pair(first: Tensor, second: Tensor, distance: str) -> Tensor:
    """What `all_distances` gives, pair by pair: slower, and equal points are equally far from any other to the bit.

    A product of matrices rounds differently at its edges, on some processors, so that one of two equal classes would
    always win.
    """
    with full_precision(first):
        if distance == "cosine":
            first, second = unit(first), unit(second)
        apart = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
        if distance == "l2":
            return apart
        has_direction = first.any(dim=-1)[..., :, None] & second.any(dim=-1)[..., None, :]
        return torch.where(has_direction, apart.square() / 2, 1)  # of unit vectors, that is 1 minus the cosine


def paired_distances(first: Tensor, second: Tensor, distance: str) -> Tensor:
    """Two (..., D), row by row, to (...)."""
    with full_precision(first):
        if distance == "cosine":
            return 1 - (unit(first) * unit(second)).sum(-1)
        return root((first - second).square().sum(-1))


def unit(vectors: Tensor) -> Tensor:
    """Scaled to length 1; a vector of zeros stays one, with a gradient of ordinary size."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, 1)


def root(squares: Tensor) -> Tensor:
    """The square root, 0 with gradient 0 where rounding or equal points leave nothing above 0."""
    least = torch.finfo(squares.dtype).tiny  # too small to change any other root
    return squares.clamp(min=least).sqrt() - least**0.5


def nearest_support(support: Tensor, support_labels: Tensor, query: Tensor, n_way: int, distance: str) -> Tensor:
    """Features (E, S, D), labels (E, S) and features (E, Q, D) to logits (E, Q, N).

    A class's logit is minus the distance to its nearest image, times a fixed factor: 10 for the cosine, whose
    distances are small beside the 1 or so that a softmax tells apart, 1 for l2. The largest tensor is (E, Q, S), so
    every image of a gallery may be a class of its own.
    """
    apart = distances_pair_by_pair(query, support, distance)  # (E, Q, S)
    similarity = -LOGITS_PER_DISTANCE[distance] * apart
    nearest = similarity.new_full((*similarity.shape[:2], n_way), float("-inf"))  # (E, Q, N)
    return nearest.scatter_reduce(2, support_labels[:, None].expand_as(similarity), similarity, "amax")
