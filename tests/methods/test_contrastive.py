"""The contrastive loss against loops and against pytorch-metric-learning.

Shapes: B images, D features, P pairs.
"""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn

from fewshot_runner.data.batch import Batch
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import PairSampler
from fewshot_runner.errors import UserError
from fewshot_runner.methods.contrastive import Contrastive

D = 6
LABELS = [0, 1, 0, 2, 1, 0, 3, 2, 1, 4, 2, 2]  # 3 and 4 have one image
DISTANCES = ("l2", "cosine")


class Identity(nn.Module):
    """Images that are features already, (B, D)."""

    out_features = D

    def forward(self, images: Tensor) -> Tensor:
        return images


def batch(labels: list[int] = LABELS, pairs: list[tuple[int, int]] | None = None) -> Batch:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(len(labels), D, generator=random, dtype=torch.double).requires_grad_()
    chosen = None if pairs is None else torch.tensor(pairs)
    return Batch(features, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long), chosen)


def slow_term(first: list[float], second: list[float], same: bool, distance: str, margin: float) -> float:
    """Hadsell et al., equation 4: half of D^2, or half of max(0, m - D)^2."""
    apart = math.dist(first, second)
    if distance == "cosine":
        apart = 1 - sum(a * b for a, b in zip(first, second, strict=True)) / math.hypot(*first) / math.hypot(*second)
    return apart**2 / 2 if same else max(0.0, margin - apart) ** 2 / 2


def slow_loss(batch: Batch, pairs: list[tuple[int, int]], distance: str, margin: float) -> float:
    rows, labels = batch.images.tolist(), batch.labels.tolist()
    kinds: dict[bool, list[float]] = {}
    for i, j in pairs:
        same = labels[i] == labels[j]
        kinds.setdefault(same, []).append(slow_term(rows[i], rows[j], same, distance, margin))
    means = [sum(terms) / len(terms) for terms in kinds.values()]
    return sum(means) / len(means)


ALL_PAIRS = [(i, j) for i in range(12) for j in range(12) if i != j]


@pytest.mark.parametrize("margin", [0.4, 3.0])
@pytest.mark.parametrize("distance", DISTANCES)
def test_loss_of_a_batch_is_balanced_over_all_its_pairs(distance: str, margin: float) -> None:
    given = batch()
    loss = Contrastive(Identity(), distance=distance, margin=margin).loss(given)
    assert loss.item() == pytest.approx(slow_loss(given, ALL_PAIRS, distance, margin), rel=1e-9)


@pytest.mark.parametrize(
    "pairs", [[(0, 2), (0, 1), (4, 8), (3, 6)], [(0, 2), (1, 3), (6, 9)], [(0, 2), (1, 4)], [(0, 1), (6, 9)]],
    ids=["balanced", "unbalanced", "same alone", "different alone"],
)  # fmt: skip
@pytest.mark.parametrize("distance", DISTANCES)
def test_loss_of_chosen_pairs(distance: str, pairs: list[tuple[int, int]]) -> None:
    given = batch(pairs=pairs)
    loss = Contrastive(Identity(), distance=distance, margin=6.0).loss(given)
    assert loss.item() == pytest.approx(slow_loss(given, pairs, distance, 6.0), rel=1e-9)
    assert loss > 0


def test_the_pairs_of_the_pair_sampler_are_read_as_it_draws_them() -> None:
    """Half of them same, half different, so the loss is the plain mean over pairs."""
    labels, names = np.arange(5).repeat(4), [f"class{n}" for n in range(5)]
    classes = ClassTable.build(labels, names, ["all"] * 5, keep=np.arange(20))
    features = torch.randn(20, D, generator=torch.Generator().manual_seed(1))
    drawn = PairSampler(classes, n_pairs=8, seed=0)[0]
    rows, labels = features[drawn.images].tolist(), drawn.labels.tolist()
    terms = [slow_term(rows[i], rows[j], labels[i] == labels[j], "l2", 4.0) for i, j in drawn.pairs.tolist()]
    loss = Contrastive(Identity(), distance="l2", margin=4.0).loss(drawn.map(features.__getitem__))
    assert loss.item() == pytest.approx(sum(terms) / 8, rel=1e-5)


class SquaredContrastiveLoss(ContrastiveLoss):
    """That library leaves the squares of the paper to its user."""

    def get_per_pair_loss(self, pair_dists: Tensor, pos_or_neg: str) -> Tensor:
        return super().get_per_pair_loss(pair_dists, pos_or_neg).square() / 2


@pytest.mark.parametrize(
    ("distance", "oracle"),
    [
        ("l2", SquaredContrastiveLoss(
            neg_margin=3.0, distance=LpDistance(normalize_embeddings=False), reducer=MeanReducer())),
        ("cosine", SquaredContrastiveLoss(
            pos_margin=1.0, neg_margin=1 - 0.4, distance=CosineSimilarity(), reducer=MeanReducer())),
    ],
    ids=DISTANCES,
)  # fmt: skip
def test_it_agrees_with_pytorch_metric_learning(distance: str, oracle: ContrastiveLoss) -> None:
    given = batch()
    loss = Contrastive(Identity(), distance=distance, margin=3.0 if distance == "l2" else 0.4).loss(given)
    expected = oracle(given.images, given.labels) / 2  # the sum of the two means
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, given.images)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, given.images)[0])


@pytest.mark.parametrize("pairs", [None, [(0, 2), (0, 1), (4, 1), (3, 6)]], ids=["all", "chosen"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_finite_differences(distance: str, pairs: list[tuple[int, int]] | None) -> None:
    given, learner = batch(LABELS[:8], pairs), Contrastive(Identity(), distance=distance, margin=2.0)
    assert torch.autograd.gradcheck(
        lambda images: learner.loss(Batch(images, given.labels, given.groups, given.pairs)), (given.images,)
    )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_all_alike_give_finite_gradients(distance: str, value: float) -> None:
    for pairs in (None, torch.tensor([[0, 1], [0, 2], [2, 3]])):
        images = torch.full((4, D), value, requires_grad=True)
        given = Batch(images, torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.long), pairs)
        Contrastive(Identity(), distance=distance, margin=1.0).loss(given).backward()
        assert images.grad.isfinite().all()


def test_a_lone_image_costs_nothing() -> None:
    learner = Contrastive(Identity(), embedding=4, distance="l2", margin=1.0)
    figures = learner.backward(Batch(torch.randn(1, D), torch.tensor([0]), torch.tensor([0])))
    assert figures["loss"] == 0
    assert (learner.embedding.weight.grad == 0).all()


def test_the_embedding_is_a_linear_layer_after_the_backbone() -> None:
    images = torch.randn(5, D)
    learner = Contrastive(Identity(), embedding=3, distance="l2", margin=1.0)
    torch.testing.assert_close(learner.embed(images), images @ learner.embedding.weight.T + learner.embedding.bias)
    assert torch.equal(Contrastive(Identity(), distance="l2", margin=1.0).embed(images), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "manhattan"}, r"distance=manhattan: choose"),
        ({"margin": 0.0}, r"margin=0\.0: "),
        ({"embedding": -1}, r"embedding=-1: "),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Contrastive(Identity(), **{"distance": "l2", "margin": 1.0} | options)
