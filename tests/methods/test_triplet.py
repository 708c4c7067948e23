"""The triplet loss against loops and against pytorch-metric-learning.

Shapes: B images, D features.
"""

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import AvgNonZeroReducer, MeanReducer
from torch import Tensor, nn

from fewshot_runner.cli.build import Builder
from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.methods.mining import MINING, Triplets
from fewshot_runner.methods.triplet import Triplet, triplet_loss

D = 6
LABELS = [0, 1, 0, 2, 1, 0, 3, 2, 1, 4, 2, 2]  # 3 and 4 have one image
ORACLES = {"l2": LpDistance(normalize_embeddings=False), "cosine": CosineSimilarity()}


class Identity(nn.Module):
    """Images that are features already, (B, D)."""

    out_features = D

    def forward(self, images: Tensor) -> Tensor:
        return images


def batch(labels: list[int] = LABELS, seed: int = 0, dtype: torch.dtype = torch.double) -> Batch:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), D, generator=random, dtype=dtype).requires_grad_()
    return Batch(features, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long))


def loss_and_gradient(learner: Triplet, batch: Batch) -> tuple[Tensor, Tensor]:
    loss = learner.loss(batch)
    return loss, torch.autograd.grad(loss, batch.images)[0]


def agrees(
    learner: Triplet,
    oracle: Callable[[Tensor, Tensor], Tensor],
    *,
    dtype: torch.dtype = torch.double,
    tolerance: float = 1e-10,
) -> None:
    given = batch(dtype=dtype)
    loss, gradient = loss_and_gradient(learner, given)
    expected = oracle(given.images, given.labels)
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    (wanted,) = torch.autograd.grad(expected, given.images)
    torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("margin", [0.05, 0.6, 2.0])
@pytest.mark.parametrize("distance", ORACLES)
def test_batch_all_agrees_with_pytorch_metric_learning(distance: str, margin: float) -> None:
    oracle = TripletMarginLoss(margin=margin, distance=ORACLES[distance], reducer=AvgNonZeroReducer())
    agrees(Triplet(Identity(), distance=distance, margin=margin, mining="batch_all"), oracle)


@pytest.mark.parametrize("margin", [0.05, 0.6, None])
@pytest.mark.parametrize("distance", ORACLES)
def test_batch_hard_agrees_with_pytorch_metric_learning(distance: str, margin: float | None) -> None:
    miner = BatchHardMiner(distance=ORACLES[distance])
    theirs = TripletMarginLoss(
        margin=margin or 0, smooth_loss=margin is None, distance=ORACLES[distance], reducer=MeanReducer()
    )
    learner = Triplet(Identity(), distance=distance, margin=margin, mining="batch_hard")
    agrees(learner, lambda features, labels: theirs(features, labels, miner(features, labels)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-10), (torch.float, 1e-5)])
@pytest.mark.parametrize("margin", [0.05, 0.6, None])
@pytest.mark.parametrize("distance", ORACLES)
def test_batch_hard_agrees_with_a_slow_loop(
    distance: str, margin: float | None, dtype: torch.dtype, tolerance: float
) -> None:
    def apart(first: Tensor, second: Tensor) -> Tensor:
        return (first - second).norm() if distance == "l2" else 1 - first @ second / first.norm() / second.norm()

    def slow(features: Tensor, labels: Tensor) -> Tensor:
        terms = []
        for a, anchor in enumerate(features):
            positives = [apart(anchor, features[p]) for p in range(len(labels)) if labels[p] == labels[a] and p != a]
            negatives = [apart(anchor, features[n]) for n in range(len(labels)) if labels[n] != labels[a]]
            if positives:
                x = max(positives) - min(negatives)
                terms.append(x.exp().log1p() if margin is None else (margin + x).clamp(min=0))
        return torch.stack(terms).mean()

    learner = Triplet(Identity(), distance=distance, margin=margin, mining="batch_hard")
    agrees(learner, slow, dtype=dtype, tolerance=tolerance)


@pytest.mark.parametrize("margin", [0.3, None])
def test_semi_hard_is_the_mean_over_all_pairs_of_a_class(margin: float | None) -> None:
    given, terms = batch(), []
    rows = given.images.tolist()
    for a, anchor in enumerate(LABELS):
        negatives = [math.dist(rows[a], rows[n]) for n, label in enumerate(LABELS) if label != anchor]
        for p, label in enumerate(LABELS):
            if label == anchor and p != a:
                positive = math.dist(rows[a], rows[p])
                chosen = min((d for d in negatives if d > positive), default=max(negatives))
                x = positive - chosen
                terms.append(math.log1p(math.exp(x)) if margin is None else max(0.0, margin + x))
    loss = Triplet(Identity(), distance="l2", margin=margin, mining="semi_hard").loss(given)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-9)


@pytest.mark.parametrize("margin", [0.5, None])
@pytest.mark.parametrize("distance", ORACLES)
@pytest.mark.parametrize("mining", MINING)
def test_gradients_are_those_of_finite_differences(mining: str, distance: str, margin: float | None) -> None:
    given, learner = batch(LABELS[:8]), Triplet(Identity(), distance=distance, margin=margin, mining=mining)

    def loss(images: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same triplets at every call
        return learner.loss(Batch(images, given.labels, given.groups))

    assert loss(given.images) > 0
    assert torch.autograd.gradcheck(loss, (given.images,))


@pytest.mark.parametrize("over_nonzero", [True, False])
def test_the_mean_is_over_all_triplets_or_those_that_cost(over_nonzero: bool) -> None:
    """Costs 0.7, 0 and 0.2; the last triplet does not exist."""
    triplets = Triplets(
        positive=torch.tensor([1.0, 1.0, 0.4, 9.0]),
        negative=torch.tensor([0.8, 2.0, 0.7, 0.0]),
        exists=torch.tensor([True, True, True, False]),
    )
    loss = triplet_loss(triplets, 0.5, over_nonzero=over_nonzero)
    assert loss.item() == pytest.approx(0.9 / 2 if over_nonzero else 0.9 / 3)


@pytest.mark.parametrize("margin", [0.5, None])
@pytest.mark.parametrize("labels", [[0, 1, 2], [4, 4, 4], [0]], ids=["singletons", "one class", "one image"])
@pytest.mark.parametrize("mining", MINING)
def test_a_batch_without_a_triplet_costs_nothing(mining: str, labels: list[int], margin: float | None) -> None:
    learner = Triplet(Identity(), embedding=4, margin=margin, mining=mining)
    given = batch(labels)
    figures = learner.backward(Batch(given.images.detach().float(), given.labels, given.groups))
    assert figures["loss"] == 0
    assert (learner.embedding.weight.grad == 0).all()


@pytest.mark.parametrize("distance", ORACLES)
@pytest.mark.parametrize("mining", MINING)
def test_a_singleton_is_a_negative_but_no_anchor(mining: str, distance: str) -> None:
    """Nothing is lost by an image without a positive being anywhere but near the others."""
    learner = Triplet(Identity(), distance=distance, margin=0.5, mining=mining)
    near = batch([0, 0, 1])
    loss, gradient = loss_and_gradient(learner, near)
    with torch.no_grad():
        towards = near.images.detach().clone()
        towards[2] = towards[0]
    assert (gradient[2] != 0).any()  # pushed away by both
    closer = learner.loss(Batch(towards, near.labels, near.groups))
    assert closer > loss
    if mining == "batch_hard":  # two anchors, no third that would dilute the mean
        rows = ORACLES[distance](near.images) * (1 if distance == "l2" else -1)
        terms = [max(0.0, 0.5 + (rows[a, 1 - a] - rows[a, 2]).item()) for a in (0, 1)]
        assert loss.item() == pytest.approx(sum(terms) / 2)


@pytest.mark.parametrize("distance", ORACLES)
@pytest.mark.parametrize("mining", MINING)
def test_images_all_alike_give_finite_gradients(mining: str, distance: str) -> None:
    for value in (0.0, 1.0):
        images = torch.full((6, D), value, requires_grad=True)
        given = Batch(images, torch.tensor([0, 0, 1, 1, 2, 3]), torch.zeros(6, dtype=torch.long))
        loss, gradient = loss_and_gradient(Triplet(Identity(), distance=distance, margin=0.5, mining=mining), given)
        assert loss.item() == pytest.approx(0.5, abs=1e-3)
        assert gradient.isfinite().all()


def test_the_embedding_is_a_linear_layer_after_the_backbone() -> None:
    images = torch.randn(5, D)
    learner = Triplet(Identity(), embedding=500)
    expected = images @ learner.embedding.weight.T + learner.embedding.bias
    assert expected.shape == (5, 500)
    torch.testing.assert_close(learner.embed(images), expected)
    assert torch.equal(Triplet(Identity()).embed(images), images)


@pytest.mark.parametrize("margin", [0.2, None])
@pytest.mark.parametrize("mining", MINING)
def test_every_mining_learns_glyphs(build: Callable[..., Builder], mining: str, margin: float | None) -> None:
    """Ten steps on one batch bring the loss down."""
    experiment = build("triplet", "method.learner.embedding=16").experiment()
    item, losses = experiment.items[0], []
    experiment.method.mining, experiment.method.margin = mining, margin
    for _ in range(10):
        torch.manual_seed(0)
        experiment.optimizer.zero_grad()
        losses.append(experiment.method.backward(item)["loss"].item())
        experiment.optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "manhattan"}, r"distance=manhattan: choose"),
        ({"margin": 0.0}, r"margin=0\.0: .*null"),
        ({"mining": "hardest"}, r"mining=hardest: choose random, batch_all, batch_hard, semi_hard"),
        ({"embedding": -1}, r"embedding=-1: "),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Triplet(Identity(), **options)
