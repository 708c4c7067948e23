"""Dimensionality Reduction by Learning an Invariant Mapping (Hadsell, Chopra and LeCun 2006),
http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf.

A pair of one class is pulled together with half the square of its distance, a pair of different classes is pushed
apart until it is farther than a margin. A query then belongs to the class of its nearest support image.

Where we deviate: the loss may use every pair of a batch (`PKSampler`) instead of the sampler's choice
(`PairSampler`), and gives the same-class pairs half of the weight either way, as a balanced pair sampler would: of
all pairs of a batch they are few. The cosine distance may replace the Euclidean one.

Shapes: B images, P pairs, D features.
"""

from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.methods.distances import all_distances, paired_distances
from fewshot_runner.methods.losses import weighted_mean
from fewshot_runner.methods.metric import MetricMethod
from fewshot_runner.methods.mining import positives_and_negatives


class Contrastive(MetricMethod):
    """`embedding`: features of a linear layer after the backbone; 0 for none. `distance`: "l2" or "cosine".

    `margin`: the distance from which on a pair of different classes costs nothing.
    """

    takes_pairs = True

    def __init__(self, backbone: nn.Module, *, embedding: int = 0, distance: str, margin: float) -> None:
        super().__init__(backbone, embedding=embedding, distance=distance)
        if margin <= 0:
            raise UserError(f"margin={margin}: give a number above 0")
        self.margin = margin

    def loss(self, batch: Batch) -> Tensor:
        features, labels = self.embed(batch.images), batch.labels
        if batch.pairs is not None:
            first, second = batch.pairs.unbind(1)
            compared = (features.index_select(0, side) for side in (first, second))  # the same sums in each run
            distances = paired_distances(*compared, self.distance)  # (P,)
            same = labels[first] == labels[second]
            return contrastive_loss(distances, same, ~same, self.margin)
        distances = all_distances(features, features, self.distance)  # (B, B)
        return contrastive_loss(distances, *positives_and_negatives(labels), self.margin)


def contrastive_loss(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Half of the weight on positive, half on negative pairs; a kind that does not occur leaves its half to the other.

    `distances` and the masks have one shape; pairs in neither mask do not count.
    """
    pull, has_positive = weighted_mean(distances.square() / 2, positive)
    push, has_negative = weighted_mean(functional.relu(margin - distances).square() / 2, negative)
    return (pull + push) / (has_positive + has_negative).clamp(min=1)
