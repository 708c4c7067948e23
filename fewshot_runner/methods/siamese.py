"""Siamese Neural Networks for One-shot Image Recognition (Koch, Zemel and Salakhutdinov 2015).

Two images pass through one network; a head turns the absolute difference of the two embeddings into the logit of
"same class". A query belongs to the class whose support images it is, on average, most likely to be the same as.

Where we deviate: once images are embedded, pairs cost next to nothing, so the loss may use every pair of a batch
(`PKSampler`) instead of the sampler's choice (`PairSampler`). Same-class pairs have half of the weight either way. All
pairs of a batch weigh as a balanced pair sampler would draw them: of the other half, as much falls to different classes
of one group (an alphabet) as to classes of different groups. What a sampler chose counts as it was chosen.

Shapes: B images, P pairs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, class_means
from fewshot_runner.methods.losses import one_shot_loss, weighted_mean
from fewshot_runner.models.pair_heads import DifferenceMlp, SignedL1, WeightedL1
from fewshot_runner.models.precision import finest

MEANS = ("logits", "probabilities")


class Siamese(EmbeddingMethod):
    """`hidden`: units of the head's hidden layer; 0 for a weighted L1 distance, `signed` as Koch et al.'s own.

    `one_shot` is the weight of a second loss, for batches without chosen pairs: the cross-entropy of the one-shot
    episodes that the pair logits answer, beside that of "same or different" (identification and verification, as
    Sun et al. 2014 trained them together, https://arxiv.org/abs/1406.4773).

    `mean_of` the "logits", or of the "probabilities" of "same class", is what a class scores over its support images.
    """

    learns_from = (Batch,)
    takes_pairs = True

    def __init__(
        self,
        backbone: nn.Module,
        *,
        hidden: int = 0,
        signed: bool = False,
        one_shot: float = 0.0,
        mean_of: str = "logits",
    ) -> None:
        super().__init__()
        if mean_of not in MEANS:
            raise UserError(f"mean_of={mean_of}: choose {' or '.join(MEANS)}")
        if one_shot < 0:
            raise UserError(f"one_shot={one_shot}: give a weight of 0 or more")
        if hidden < 0:
            raise UserError(f"hidden={hidden}: give 0 (no hidden layer) or a number of units")
        self.backbone = backbone
        self.one_shot = one_shot
        self.mean_of = mean_of
        features = backbone.out_features
        if hidden and signed:
            raise UserError(f"signed=true is a head without a hidden layer; set hidden=0 (now {hidden})")
        self.head = DifferenceMlp(features, hidden) if hidden else (SignedL1 if signed else WeightedL1)(features)

    def check_item(self, item: Episode | Batch) -> None:
        super().check_item(item)
        if self.one_shot and item.pairs is not None:
            raise UserError(
                f"method.learner.one_shot={self.one_shot}: the one-shot loss needs all pairs of a batch, and the "
                "sampler chooses some; set method.learner.one_shot=0, or method=siamese"
            )

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        same = self.head.all_pairs(support, query)  # (E, S, Q)
        if self.mean_of == "probabilities":  # its logarithm, so that a softmax is over the means
            fine = same.to(finest(same))  # in float32 those of -104 and below would all be 0
            mean, rest = (class_means(each.sigmoid(), support_labels, n_way) for each in (fine, -fine))
            # by what is missing to 1 where that is less: those of 37 and above would all be 1
            mean = torch.where(mean < rest, mean.log(), (-rest).log1p()).to(same.dtype)
        else:
            mean = class_means(same, support_labels, n_way)
        return mean.transpose(1, 2)  # (E, N, Q) -> (E, Q, N)

    def loss(self, batch: Batch) -> Tensor:
        features, labels, groups = self.embed(batch.images), batch.labels, batch.groups
        if batch.pairs is not None:
            first, second = batch.pairs.unbind(1)
            pairs = features.index_select(0, first), features.index_select(0, second)  # their gradient is the faster
            logits = self.head(*pairs)  # (P,)
            return balanced_loss(logits, labels[first] == labels[second])
        logits = self.head.pairs_within(features)  # (B, B)
        weights = torch.ones_like(logits).fill_diagonal_(0)  # an image and itself make no pair
        loss = balanced_loss(logits, labels[:, None] == labels, groups[:, None] == groups, weights)
        return loss + self.one_shot * one_shot_loss(logits, labels) if self.one_shot else loss


def balanced_loss(
    logits: Tensor, same: Tensor, same_group: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of pair logits, averaged within each kind of pair and then over the kinds.

    Same-class pairs weigh as much as different-class pairs; among the latter, with `same_group`, those within a group
    as much as those across. A kind that does not occur leaves its weight to the others of its half; without any pair
    the loss is 0. `same`, `same_group` (booleans) and `weights` have the shape of `logits`.
    """
    each = functional.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none")
    weights = torch.ones_like(each) if weights is None else weights
    positive, has_positive = weighted_mean(each, weights * same)
    if same_group is None:
        negative, has_negative = weighted_mean(each, weights * ~same)
    else:
        near, has_near = weighted_mean(each, weights * (~same & same_group))
        far, has_far = weighted_mean(each, weights * (~same & ~same_group))
        negative = (near + far) / (has_near + has_far).clamp(min=1)
        has_negative = torch.maximum(has_near, has_far)
    return (positive + negative) / (has_positive + has_negative).clamp(min=1)
