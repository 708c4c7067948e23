"""Prototypical Networks for Few-shot Learning (Snell, Swersky and Zemel 2017), https://arxiv.org/abs/1703.05175.

A class is represented by the mean of its embedded support images, its prototype. A query belongs to the nearest
prototype. Training minimises the cross-entropy of a softmax over negative squared distances.

Where we deviate: similarities are multiplied by a learned positive scale, the cosine may replace the distance, and
training may take labelled batches instead of episodes (`PKSampler`). Then every pair of images of one class is a
one-shot episode against all other classes of the batch: once images are embedded, all those episodes together cost
one product of matrices.

Shapes: B images, E episodes, N ways, Q queries, D features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, class_means
from fewshot_runner.methods.distances import all_distances, all_squared_distances, distances_pair_by_pair, unit
from fewshot_runner.methods.losses import one_shot_loss


class Prototypical(EmbeddingMethod):
    """`distance`: "euclidean" (squared, averaged over features) or "cosine"; `scale`: where its factor starts."""

    def __init__(self, backbone: nn.Module, *, distance: str, scale: float = 10.0) -> None:
        super().__init__()
        if distance not in ("euclidean", "cosine"):
            raise UserError(f"distance={distance}: choose euclidean or cosine")
        if scale <= 0:
            raise UserError(f"scale={scale}: give a number above 0")
        self.backbone = backbone
        self.distance = distance
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        if self.distance == "cosine":
            support = unit(support)
        prototypes = class_means(support, support_labels, n_way)  # (E, N, D)
        if self.distance == "cosine":
            similarity = 1 - distances_pair_by_pair(query, prototypes, "cosine")  # (E, Q, N)
        else:
            similarity = -distances_pair_by_pair(query, prototypes, "l2").square() / query.shape[-1]
        return self.log_scale.exp() * similarity

    def similarity(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., A, D) and (..., B, D) to scaled similarities (..., A, B), by a product of matrices."""
        if self.distance == "cosine":
            similarity = 1 - all_distances(first, second, "cosine")
        else:
            similarity = -all_squared_distances(first, second) / first.shape[-1]
        return self.log_scale.exp() * similarity

    def loss(self, batch: Episode | Batch) -> Tensor:
        if isinstance(batch, Batch):
            features = self.embed(batch.images)
            return one_shot_loss(self.similarity(features, features), batch.labels)
        features = batch.map(self.embed)
        logits = self.score(features.support, features.support_labels, features.query, features.n_way)
        return functional.cross_entropy(logits.flatten(0, 1), features.query_labels.flatten())
