"""Siamese Neural Networks for One-shot Image Recognition (Koch, Zemel and Salakhutdinov 2015).

Two images pass through one network; a head turns the absolute difference of the two embeddings into the logit of
"same class". A query belongs to the class whose support images it is, on average, most likely to be the same as.

Where we deviate: once images are embedded, pairs cost next to nothing, so the loss may use every pair of a batch
(`PKSampler`) instead of the sampler's choice (`PairSampler`). Either way it weighs pairs as a balanced pair sampler
would draw them: half of the weight on same-class pairs, a quarter on different classes of one group (an alphabet),
a quarter on classes of different groups.

Shapes: P pairs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, class_means


class Siamese(EmbeddingMethod):
    """`hidden`: units of the head's hidden layer; 0 for Koch's weighted L1 distance."""

    def __init__(self, backbone: nn.Module, *, hidden: int = 0) -> None:
        super().__init__()
        if hidden < 0:
            raise UserError(f"method.learner.hidden={hidden}: give 0 (no hidden layer) or a number of units")
        features = backbone.out_features
        self.backbone = backbone
        self.head = (
            nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            if hidden
            else nn.Linear(features, 1)
        )

    def embed(self, images: Tensor) -> Tensor:
        return self.backbone(images)  # (B, D)

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Two broadcastable (..., D) to the logits (...) of showing the same class."""
        return self.head((first - second).abs()).squeeze(-1)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        # one query at a time: the differences of all (E, Q, S, D) at once would not fit for hundreds of ways
        same = torch.stack([self.compare(query[:, q, None], support) for q in range(query.shape[1])], dim=2)
        return class_means(same, support_labels, n_way).transpose(1, 2)  # (E, S, Q) -> (E, N, Q) -> (E, Q, N)

    def loss(self, batch: Batch) -> Tensor:
        features = self.embed(batch.images)
        pairs = batch.pairs
        if pairs is None:
            pairs = torch.combinations(torch.arange(len(features), device=features.device))  # (P, 2)
        first, second = pairs.unbind(1)
        logits = self.compare(features[first], features[second])  # (P,)
        same = batch.labels[first] == batch.labels[second]
        same_group = batch.groups[first] == batch.groups[second]
        return balanced_loss(logits, same, same_group)


def balanced_loss(logits: Tensor, same: Tensor, same_group: Tensor) -> Tensor:
    """Binary cross-entropy of pair logits (P,), averaged within each kind of pair and then over the kinds.

    Same-class pairs weigh as much as different-class pairs; among the latter, those within a group as much as those
    across. A kind that does not occur leaves its weight to the others of its half.
    """
    each = functional.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none")  # (P,)

    def mean_over(kind: Tensor) -> tuple[Tensor, Tensor]:
        count = kind.sum()
        return (each * kind).sum() / count.clamp(min=1), (count > 0).to(each.dtype)

    positive, has_positive = mean_over(same)
    near, has_near = mean_over(~same & same_group)
    far, has_far = mean_over(~same & ~same_group)
    negative = (near + far) / (has_near + has_far).clamp(min=1)
    has_negative = torch.maximum(has_near, has_far)
    return (positive + negative) / (has_positive + has_negative)
