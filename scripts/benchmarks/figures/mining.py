"""The triplet loss with batch-hard mining over 256 embeddings, forward and backward, beside
pytorch-metric-learning's."""

from collections.abc import Callable, Iterator

import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from benchmarks.measuring import Bench, Contestant, Figure, race, speedup
from fewshot_runner.methods.distances import all_distances
from fewshot_runner.methods.mining import batch_hard
from fewshot_runner.methods.triplet import triplet_loss

CLASSES, IMAGES, FEATURES, MARGIN = 64, 4, 64, 0.2
ROUNDS, CALLS = 15, 200
THEIRS = {"cosine": CosineSimilarity, "l2": lambda: LpDistance(normalize_embeddings=False)}

Loss = Callable[[Tensor, Tensor], Tensor]  # embeddings (B, D) and labels (B,) to a scalar


def figures(bench: Bench) -> Iterator[Figure]:
    embeddings, labels = batch()
    for distance in THEIRS:
        losses = {"fsl": own_loss(distance), "pytorch-metric-learning": their_loss(distance)}
        contestants = {
            name: Contestant(repeated(loss, embeddings, labels), bench.units(CALLS)) for name, loss in losses.items()
        }
        samples = race(contestants, rounds=bench.rounds(ROUNDS))
        yield speedup(f"batch-hard mining, {distance}", samples, against="pytorch-metric-learning", target=1.5)


def batch() -> tuple[Tensor, Tensor]:
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    embeddings = torch.randn(len(labels), FEATURES, generator=torch.Generator().manual_seed(0))
    return embeddings.requires_grad_(), labels


def own_loss(distance: str) -> Loss:
    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        return triplet_loss(batch_hard(all_distances(embeddings, embeddings, distance), labels), MARGIN)

    return loss


def their_loss(distance: str) -> Loss:
    """Averaged over all mined triplets, as ours; theirs would leave out those that cost nothing."""
    miner = BatchHardMiner(distance=THEIRS[distance]())
    criterion = TripletMarginLoss(margin=MARGIN, distance=THEIRS[distance](), reducer=MeanReducer())

    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        return criterion(embeddings, labels, miner(embeddings, labels))

    return loss


def repeated(loss: Loss, embeddings: Tensor, labels: Tensor) -> Callable[[int], None]:
    def run(units: int) -> None:
        for _ in range(units):
            embeddings.grad = None
            loss(embeddings, labels).backward()

    return run
