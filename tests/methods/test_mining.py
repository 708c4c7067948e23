"""Mining against loops over all triplets and against pytorch-metric-learning.

Shapes: B images.
"""

import math
from collections import Counter

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.miners import BatchHardMiner, TripletMarginMiner
from torch import Tensor

from fewshot_runner.methods.distances import all_distances
from fewshot_runner.methods.mining import (
    MINING,
    Triplets,
    batch_all,
    batch_hard,
    positives_and_negatives,
    random_triplets,
    semi_hard,
)

LABELS = {
    "balanced": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "with singletons": [3, 0, 1, 0, 2, 1, 0, 4, 1],
    "shuffled": [7, 2, 2, 7, 5, 5, 7, 2, 5],
    "one class": [1, 1, 1, 1],
    "singletons alone": [0, 1, 2, 3],
    "one image": [0],
}
ORACLES = {"l2": LpDistance(normalize_embeddings=False), "cosine": CosineSimilarity()}


def features_and_distances(labels: list[int], distance: str = "l2", seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), 4, generator=random, dtype=torch.double)
    return features, all_distances(features, features, distance)


def positives_of(labels: list[int], anchor: int) -> list[int]:
    return [i for i, label in enumerate(labels) if label == labels[anchor] and i != anchor]


def negatives_of(labels: list[int], anchor: int) -> list[int]:
    return [i for i, label in enumerate(labels) if label != labels[anchor]]


def listed(triplets: Triplets) -> list[tuple[float, float]]:
    """(distance to the positive, distance to the negative) of every triplet that exists."""
    positive, negative, exists = torch.broadcast_tensors(*triplets)
    return sorted(zip(positive[exists].tolist(), negative[exists].tolist(), strict=True))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_an_image_is_neither_its_own_positive_nor_negative(labels: list[int]) -> None:
    positive, negative = positives_and_negatives(torch.tensor(labels))
    for anchor in range(len(labels)):
        assert positive[anchor].nonzero()[:, 0].tolist() == positives_of(labels, anchor)
        assert negative[anchor].nonzero()[:, 0].tolist() == negatives_of(labels, anchor)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_batch_all_holds_every_triplet_once(labels: list[int]) -> None:
    _, distances = features_and_distances(labels)
    expected = [
        (distances[a, p].item(), distances[a, n].item())
        for a in range(len(labels))
        for p in positives_of(labels, a)
        for n in negatives_of(labels, a)
    ]
    assert listed(batch_all(distances, torch.tensor(labels))) == sorted(expected)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative(labels: list[int]) -> None:
    _, distances = features_and_distances(labels)
    expected = [
        (max(distances[a, p].item() for p in positives_of(labels, a)),
         min(distances[a, n].item() for n in negatives_of(labels, a)))
        for a in range(len(labels))
        if positives_of(labels, a) and negatives_of(labels, a)
    ]  # fmt: skip
    assert listed(batch_hard(distances, torch.tensor(labels))) == sorted(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_semi_hard_takes_the_nearest_negative_beyond_the_positive_or_else_the_farthest(
    labels: list[int], seed: int
) -> None:
    _, distances = features_and_distances(labels, seed=seed)
    expected = []
    for a in range(len(labels)):
        for p in positives_of(labels, a):
            negatives = [distances[a, n].item() for n in negatives_of(labels, a)]
            if negatives:
                beyond = [d for d in negatives if d > distances[a, p].item()]
                expected.append((distances[a, p].item(), min(beyond) if beyond else max(negatives)))
    assert listed(semi_hard(distances, torch.tensor(labels))) == sorted(expected)


def test_a_negative_as_far_as_the_positive_is_not_semi_hard() -> None:
    """Anchor 0: its positive at 1, negatives at 1 and 2."""
    points = torch.tensor([0.0, 1, -1, 2])
    triplets = semi_hard((points[:, None] - points).abs(), torch.tensor([0, 0, 1, 1]))
    assert (triplets.positive[0, 1], triplets.negative[0, 1]) == (1, 2)


@pytest.mark.parametrize("distance", ORACLES)
@pytest.mark.parametrize("labels", ["balanced", "with singletons", "shuffled"])
def test_batch_hard_agrees_with_pytorch_metric_learning(labels: str, distance: str) -> None:
    features, distances = features_and_distances(LABELS[labels], distance)
    anchor, positive, negative = BatchHardMiner(distance=ORACLES[distance])(features, torch.tensor(LABELS[labels]))
    theirs = sorted(zip(distances[anchor, positive].tolist(), distances[anchor, negative].tolist(), strict=True))
    assert listed(batch_hard(distances, torch.tensor(LABELS[labels]))) == theirs


@pytest.mark.parametrize("distance", ORACLES)
@pytest.mark.parametrize("labels", ["balanced", "with singletons", "shuffled"])
def test_semi_hard_is_the_hardest_of_what_pytorch_metric_learning_calls_so(labels: str, distance: str) -> None:
    features, distances = features_and_distances(LABELS[labels], distance)
    ours = semi_hard(distances, torch.tensor(LABELS[labels]))
    miner = TripletMarginMiner(margin=100, type_of_triplets="semihard", distance=ORACLES[distance])
    nearest: dict[tuple[int, int], float] = {}
    for a, p, n in torch.stack(miner(features, torch.tensor(LABELS[labels]))).T.tolist():
        nearest[a, p] = min(nearest.get((a, p), math.inf), distances[a, n].item())
    assert len(nearest) > 5
    for (a, p), expected in nearest.items():
        assert ours.negative[a, p] == expected
    assert ((ours.negative > ours.positive) & ours.exists).sum() == len(nearest)  # all others fell back


def test_random_triplets_are_drawn_evenly() -> None:
    """Anchor 3 of class 1 has two positives and six negatives: after 1800 draws each came up as often as it should."""
    labels = torch.tensor(LABELS["balanced"])
    distances = torch.arange(81.0).view(9, 9)  # 27 + j from anchor 3 to image j
    generator = torch.Generator().manual_seed(0)
    drawn = [random_triplets(distances, labels, generator) for _ in range(1800)]
    positives = Counter(int(triplets.positive[3]) - 27 for triplets in drawn)
    negatives = Counter(int(triplets.negative[3]) - 27 for triplets in drawn)
    assert set(positives) == {4, 5}
    assert set(negatives) == {0, 1, 2, 6, 7, 8}
    assert all(abs(count - 900) < 4 * math.sqrt(450) for count in positives.values())
    assert all(abs(count - 300) < 4 * math.sqrt(1800 * 5 / 36) for count in negatives.values())


def test_random_triplets_of_two_anchors_are_independent() -> None:
    """Anchors 0 and 1 share six negatives; they draw the same one in a sixth of the cases."""
    labels = torch.tensor(LABELS["balanced"])
    distances = torch.arange(9.0).expand(9, 9)
    generator = torch.Generator().manual_seed(0)
    drawn = [random_triplets(distances, labels, generator).negative for _ in range(1800)]
    agreeing = sum(bool(negative[0] == negative[1]) for negative in drawn)
    assert abs(agreeing - 300) < 4 * math.sqrt(1800 * 5 / 36)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_random_triplets_have_an_anchor_with_a_positive_and_a_negative(labels: list[int]) -> None:
    _, distances = features_and_distances(labels)
    for seed in range(20):
        triplets = random_triplets(distances, torch.tensor(labels), torch.Generator().manual_seed(seed))
        for anchor in range(len(labels)):
            positives, negatives = positives_of(labels, anchor), negatives_of(labels, anchor)
            assert triplets.exists[anchor] == bool(positives and negatives)
            if triplets.exists[anchor]:
                assert triplets.positive[anchor] in distances[anchor, positives]
                assert triplets.negative[anchor] in distances[anchor, negatives]


def test_random_triplets_follow_the_seed() -> None:
    _, distances = features_and_distances(LABELS["balanced"] * 3)
    labels = torch.tensor(LABELS["balanced"] * 3)

    def drawn(seed: int) -> list[tuple[float, float]]:
        torch.manual_seed(seed)
        return listed(random_triplets(distances, labels))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("mining", MINING)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_what_does_not_exist_is_finite_and_gives_finite_gradients(labels: list[int], mining: str) -> None:
    features, _ = features_and_distances(labels)
    features.requires_grad_()
    triplets = MINING[mining](all_distances(features, features, "l2"), torch.tensor(labels))
    assert triplets.positive.isfinite().all()
    assert triplets.negative.isfinite().all()
    (triplets.positive.sum() + triplets.negative.sum()).backward()
    assert features.grad.isfinite().all()
