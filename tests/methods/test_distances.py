"""Distances and the nearest-neighbour score against loops.

Shapes: E episodes, N ways, S support images, Q queries, D features.
"""

import math

import pytest
import torch
from torch import Tensor

from fewshot_runner.errors import UserError
from fewshot_runner.methods.distances import (
    DISTANCES,
    LOGITS_PER_DISTANCE,
    all_distances,
    check_distance,
    distances_pair_by_pair,
    nearest_support,
    paired_distances,
)


def slow_distance(first: list[float], second: list[float], distance: str) -> float:
    if distance == "l2":
        return math.dist(first, second)
    return 1 - sum(a * b for a, b in zip(first, second, strict=True)) / math.hypot(*first) / math.hypot(*second)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_equal_the_definition(distance: str) -> None:
    first, second = randn(2, 4, 5), randn(2, 3, 5, seed=1)
    together = all_distances(first, second, distance)
    assert together.shape == (2, 4, 3)
    torch.testing.assert_close(distances_pair_by_pair(first, second, distance), together, rtol=1e-9, atol=1e-9)
    for e in range(2):
        for a in range(4):
            for b in range(3):
                expected = slow_distance(first[e, a].tolist(), second[e, b].tolist(), distance)
                assert together[e, a, b].item() == pytest.approx(expected, rel=1e-9)
                assert paired_distances(first[e, a], second[e, b], distance).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_finite_differences(distance: str) -> None:
    first, second = randn(3, 4).requires_grad_(), randn(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: all_distances(a, b, distance), (first, second))
    assert torch.autograd.gradcheck(lambda a, b: distances_pair_by_pair(a, b, distance), (first, second))
    assert torch.autograd.gradcheck(lambda a, b: paired_distances(a, b, distance), (first, second))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_equal_points_have_no_distance_and_an_ordinary_gradient(distance: str, value: float) -> None:
    """The derivative of the root at 0 is infinite."""
    features = torch.full((3, 7), value, requires_grad=True)
    for function in (all_distances, distances_pair_by_pair, paired_distances):
        distances = function(features, features, distance)
        assert distances.isfinite().all()
        if value != 0 or distance == "l2":
            assert distances.abs().max() < 1e-3
        (gradient,) = torch.autograd.grad(distances.sum(), features)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 10


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_vector_of_zeros_has_an_ordinary_gradient(distance: str) -> None:
    """It has no direction, so what a change of it does to the cosine has no bound."""
    zeros, others = torch.zeros(3, 7, requires_grad=True), randn(3, 7).float()
    for distances in (all_distances(zeros, others, distance), paired_distances(zeros, others, distance)):
        (gradient,) = torch.autograd.grad(distances.sum(), zeros)
        assert 0 < gradient.abs().max() < 10


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [2, 0, 1, 2, 2, 1]])
def test_a_class_scores_by_its_nearest_image(distance: str, labels: list[int]) -> None:
    support, query = randn(2, 6, 5), randn(2, 4, 5, seed=1)
    support_labels = torch.tensor([labels, labels[::-1]])

    logits = nearest_support(support, support_labels, query, 3, distance)

    assert logits.shape == (2, 4, 3)
    for e in range(2):
        for q in range(4):
            for n in range(3):
                nearest = min(
                    slow_distance(query[e, q].tolist(), support[e, s].tolist(), distance)
                    for s in range(6)
                    if support_labels[e, s] == n
                )
                assert logits[e, q, n].item() == pytest.approx(-LOGITS_PER_DISTANCE[distance] * nearest, rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_order_of_support_images_changes_nothing(distance: str) -> None:
    support, query, labels = randn(1, 9, 5), randn(1, 4, 5, seed=1), torch.tensor([[0, 1, 1, 2, 2, 2, 3, 0, 0]])
    order = torch.tensor([3, 8, 1, 0, 7, 2, 6, 5, 4])
    expected = nearest_support(support, labels, query, 4, distance)
    torch.testing.assert_close(nearest_support(support[:, order], labels[:, order], query, 4, distance), expected)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("n_query", [1, 5, 33])
@pytest.mark.parametrize("n_support", [2, 7, 31, 301])
def test_equal_features_are_exact_ties(distance: str, n_query: int, n_support: int) -> None:
    """Wherever a product of matrices puts them, and whether the queries equal them or not."""
    for features in (5, 64, 1280):
        one = torch.rand(features, generator=torch.Generator().manual_seed(features))
        other = torch.rand(features, generator=torch.Generator().manual_seed(1))
        for query in (one, other, torch.zeros(features)):
            logits = nearest_support(
                one.expand(1, n_support, -1), torch.arange(n_support)[None], query.expand(1, n_query, -1),
                n_support, distance,
            )  # fmt: skip
            assert logits.unique().numel() == 1


@pytest.mark.parametrize("distance", DISTANCES)
def test_no_tensor_is_larger_than_queries_times_support(distance: str) -> None:
    """A gallery of 1000 images, each a class: the (E, S, N, Q) of a product of masks would be a thousand times that."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in (result if isinstance(result, tuple) else [result]))
            return result

    with Watch():
        nearest_support(torch.rand(1, 1000, 8), torch.arange(1000)[None], torch.rand(1, 20, 8), 1000, distance)
    assert max(sizes) == 20 * 1000


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_are_exact_where_the_network_is_not(distance: str) -> None:
    features = (4 + randn(40, 64)).float()
    exact = all_distances(features, features, distance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(all_distances(features, features, distance), exact)
        apart = distances_pair_by_pair(features[:20], features[20:], distance)
        torch.testing.assert_close(apart, exact[:20, 20:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            paired_distances(features[:20], features[20:], distance), exact[:20, 20:].diagonal(), rtol=1e-4, atol=1e-4
        )


def test_an_unknown_distance_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"distance=manhattan: choose cosine or l2"):
        check_distance("manhattan")


@pytest.mark.parametrize("centre", [0.0, 1.5, -100.0])
def test_close_points_far_from_the_origin_keep_their_distances(centre: float) -> None:
    """Embeddings that end in ReLU or batch norm have such means; squares of them would swallow the differences."""
    random = torch.Generator().manual_seed(0)
    spread = 1e-3 * max(1.0, abs(centre))
    first, second = (centre + spread * torch.randn(2, count, 64, generator=random) for count in (7, 9))
    apart = all_distances(first, second, "l2")
    torch.testing.assert_close(distances_pair_by_pair(first, second, "l2"), apart, rtol=1e-3, atol=0)
    for e in range(2):
        for a in range(7):
            for b in range(9):
                expected = (first[e, a].double() - second[e, b].double()).square().sum().sqrt()
                assert apart[e, a, b].item() == pytest.approx(expected.item(), rel=1e-3)
