"""Prototypical Networks for Few-shot Learning (Snell, Swersky and Zemel 2017), https://arxiv.org/abs/1703.05175.

A class is represented by the mean of its embedded support images, its prototype. A query belongs to the nearest
prototype. Training minimises the cross-entropy of a softmax over negative squared distances.

Where we deviate: the distances are multiplied by a learned positive scale, and the cosine may replace the distance.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, class_means


class Prototypical(EmbeddingMethod):
    """`distance`: "euclidean" (squared, averaged over features) or "cosine"; `scale`: where its factor starts."""

    def __init__(self, backbone: nn.Module, *, distance: str = "euclidean", scale: float = 10.0) -> None:
        super().__init__()
        if distance not in ("euclidean", "cosine"):
            raise UserError(f"method.learner.distance={distance}: choose euclidean or cosine")
        if scale <= 0:
            raise UserError(f"method.learner.scale={scale}: give a number above 0")
        self.backbone = backbone
        self.distance = distance
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def embed(self, images: Tensor) -> Tensor:
        return self.backbone(images)  # (B, D)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        if self.distance == "cosine":
            support, query = functional.normalize(support, dim=-1), functional.normalize(query, dim=-1)
        prototypes = class_means(support, support_labels, n_way)  # (E, N, D)
        if self.distance == "cosine":
            similarity = query @ functional.normalize(prototypes, dim=-1).transpose(1, 2)  # (E, Q, N)
        else:
            similarity = -(
                query.square().mean(dim=-1)[:, :, None]
                + prototypes.square().mean(dim=-1)[:, None]
                - 2 * (query @ prototypes.transpose(1, 2)) / query.shape[-1]
            )  # (E, Q, N)
        return self.log_scale.exp() * similarity

    def loss(self, batch: Episode) -> Tensor:
        features = batch.map(self.embed)
        logits = self.score(features.support, features.support_labels, features.query, features.n_way)
        return functional.cross_entropy(logits.flatten(0, 1), features.query_labels.flatten())
