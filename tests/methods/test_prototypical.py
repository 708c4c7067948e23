"""Prototypical networks against the definition, written as loops."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.prototypical import Prototypical

SCALE = 3.0
LABELS = {"equal": [0, 1, 2, 2, 1, 0], "unequal": [2, 0, 1, 2, 2, 1]}  # 2, 2, 2 and 1, 2, 3 shots


def random_features(shots: str) -> Episode:
    """Two episodes of 3 ways with 6 support images and 4 queries of 5 features, all in double precision."""
    random = torch.Generator().manual_seed(0)
    return Episode(
        support=torch.randn(2, 6, 5, generator=random, dtype=torch.double),
        support_labels=torch.tensor([LABELS[shots], LABELS[shots][::-1]]),
        query=torch.randn(2, 4, 5, generator=random, dtype=torch.double),
        query_labels=torch.tensor([[2, 0, 1, 0], [1, 1, 0, 2]]),
        n_way=3,
    )


def slow_score(episode: Episode, distance: str) -> list[list[list[float]]]:
    """Scale times minus the mean squared distance, or times the cosine, to each class mean."""

    def unit(vector: list[float]) -> list[float]:
        length = math.sqrt(sum(x * x for x in vector))
        return [x / length for x in vector]

    logits = []
    for e in range(2):
        support, query = episode.support[e].tolist(), episode.query[e].tolist()
        if distance == "cosine":
            support, query = [unit(v) for v in support], [unit(v) for v in query]
        rows = []
        for q in query:
            row = []
            for n in range(3):
                of_class = [s for s, label in zip(support, episode.support_labels[e], strict=True) if label == n]
                mean = [sum(values) / len(of_class) for values in zip(*of_class, strict=True)]
                if distance == "cosine":
                    similarity = sum(a * b for a, b in zip(q, unit(mean), strict=True))
                else:
                    similarity = -sum((a - b) ** 2 for a, b in zip(q, mean, strict=True)) / len(q)
                row.append(SCALE * similarity)
            rows.append(row)
        logits.append(rows)
    return logits


def method(distance: str) -> Prototypical:
    return Prototypical(nn.Flatten(), distance=distance, scale=SCALE).double()


@pytest.mark.parametrize("shots", LABELS)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_score_equals_the_definition(distance: str, shots: str) -> None:
    episode = random_features(shots)
    logits = method(distance).score(episode.support, episode.support_labels, episode.query, 3)
    expected = torch.tensor(slow_score(episode, distance), dtype=torch.double)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)  # the scale is kept in single precision


@pytest.mark.parametrize("shots", LABELS)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_loss_is_the_mean_surprise_at_the_right_class(distance: str, shots: str) -> None:
    episode = random_features(shots)
    surprises = []
    for e, rows in enumerate(slow_score(episode, distance)):
        for row, label in zip(rows, episode.query_labels[e], strict=True):
            surprises.append(math.log(sum(math.exp(x) for x in row)) - row[label])
    loss = method(distance).loss(episode)
    assert loss.item() == pytest.approx(sum(surprises) / 8, rel=1e-5)  # embeddings are in single precision


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2, 2], [0, 1, 1, 2, 1, 3], [0, 0, 1, 1, 1, 1]])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_loss_of_a_batch_is_the_mean_over_all_its_one_shot_episodes(distance: str, labels: list[int]) -> None:
    """Query i, support j of its class; every other class answers with the mean weight of its images."""
    images = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    rows = images.tolist()

    def weight(i: int, j: int) -> float:
        a, b = rows[i], rows[j]
        if distance == "cosine":
            similarity = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        else:
            similarity = -sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 5
        return math.exp(SCALE * similarity)

    surprises = []
    for i in range(6):
        for j in range(6):
            if i == j or labels[i] != labels[j]:
                continue
            others = 0.0
            for other in set(labels) - {labels[i]}:
                of_class = [weight(i, k) for k in range(6) if labels[k] == other]
                others += sum(of_class) / len(of_class)
            surprises.append(-math.log(weight(i, j) / (weight(i, j) + others)))
    loss = method(distance).loss(Batch(images, torch.tensor(labels), torch.zeros(6, dtype=torch.long)))
    assert loss.item() == pytest.approx(sum(surprises) / len(surprises), rel=1e-5)


def test_a_batch_of_pairs_costs_what_one_shot_episodes_cost_on_average() -> None:
    """Three classes of two images: all eight choices of a support image each, by the episodes' own loss."""
    learner = method("euclidean")
    images = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    likelihoods: dict[tuple[int, int], list[float]] = {}
    for choice in product((0, 1), repeat=3):
        support = torch.stack([images[2 * n + k] for n, k in enumerate(choice)])
        query = torch.stack([images[2 * n + 1 - k] for n, k in enumerate(choice)])
        logits = learner.score(support[None], torch.arange(3)[None], query[None], 3)[0]
        for n, k in enumerate(choice):
            weights = logits[n].exp()
            ratio = (weights.sum() - weights[n]) / weights[n]  # what the other classes weigh, beside the right one
            likelihoods.setdefault((n, k), []).append(ratio.item())
    expected = [math.log1p(sum(ratios) / len(ratios)) for ratios in likelihoods.values()]
    batch = Batch(images, torch.tensor([0, 0, 1, 1, 2, 2]), torch.zeros(6, dtype=torch.long))
    assert learner.loss(batch).item() == pytest.approx(sum(expected) / 6, rel=1e-5)


def test_similarities_far_from_the_origin_are_those_of_double_precision() -> None:
    random = torch.Generator().manual_seed(0)
    features = 1000 + torch.randn(6, 64, generator=random)
    similarity = Prototypical(nn.Flatten(), distance="euclidean", scale=SCALE).similarity(features, features)
    exact = -SCALE * (features.double()[:, None] - features.double()).square().mean(-1)
    torch.testing.assert_close(similarity.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_batch_without_a_pair_costs_nothing() -> None:
    batch = Batch(torch.randn(3, 5), torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.long))
    learner = Prototypical(nn.Flatten(), distance="euclidean")
    figures = learner.backward(batch)
    assert figures["loss"] == 0
    assert learner.log_scale.grad == 0


def test_the_scale_is_learned_and_stays_positive() -> None:
    learner = method("euclidean")
    learner.backward(random_features("equal"))
    assert learner.log_scale.grad != 0
    with torch.no_grad():
        learner.log_scale -= 10 * learner.log_scale.grad.sign() + 10
    assert learner.log_scale.exp() > 0


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_distances_are_exact_where_the_network_is_not(distance: str) -> None:
    """In bfloat16, |q|^2 + |p|^2 - 2 qp would drown small differences of large features."""
    random = torch.Generator().manual_seed(0)
    features: Tensor = 4 + torch.randn(1, 40, 64, generator=random)
    labels = torch.arange(20)[None]
    learner = Prototypical(nn.Flatten(), distance=distance, scale=SCALE)
    exact = learner.score(features[:, :20], labels, features[:, 20:], 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = learner.score(features[:, :20], labels, features[:, 20:], 20)
    torch.testing.assert_close(mixed, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("options", "key"), [({"distance": "manhattan"}, "distance"), ({"scale": 0.0}, "scale")])
def test_wrong_options_are_refused_by_name(options: dict, key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}="):
        Prototypical(nn.Flatten(), **{"distance": "euclidean"} | options)
