"""Triplet loss with mining (Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832; Hermans, Beyer
and Leibe 2017, https://arxiv.org/abs/1703.07737).

An image (the anchor) should lie nearer to another of its class (the positive) than to one of any other class (the
negative), by a margin. All images of a batch are embedded once; mining chooses the triplets among their distances
(`mining.py`). A query then belongs to the class of its nearest support image.

Where we deviate: FaceNet compares squared distances of unit vectors. That is twice the cosine distance used here, so
its margin of 0.2 is our 0.1.

Shapes: B images, D features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.methods.distances import all_distances
from fewshot_runner.methods.metric import MetricMethod
from fewshot_runner.methods.mining import MINING, Triplets


class Triplet(MetricMethod):
    """`embedding`: features of a linear layer after the backbone; 0 for none. `distance`: "cosine" or "l2".

    `margin`: by how much a negative must be farther than a positive; None for the soft margin, log(1 + exp(x)) in
    place of max(0, margin + x). `mining`: "random", "batch_all", "batch_hard" or "semi_hard".
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        embedding: int = 0,
        distance: str = "cosine",
        margin: float | None = 0.2,
        mining: str = "semi_hard",
    ) -> None:
        super().__init__(backbone, embedding=embedding, distance=distance)
        if margin is not None and margin <= 0:
            raise UserError(f"margin={margin}: give a number above 0, or null for the soft margin")
        if mining not in MINING:
            raise UserError(f"mining={mining}: choose {', '.join(MINING)}")
        self.margin = margin
        self.mining = mining

    def loss(self, batch: Batch) -> Tensor:
        features = self.embed(batch.images)
        triplets = MINING[self.mining](all_distances(features, features, self.distance), batch.labels)
        return triplet_loss(triplets, self.margin, over_nonzero=self.mining == "batch_all")


def triplet_loss(triplets: Triplets, margin: float | None, *, over_nonzero: bool = False) -> Tensor:
    """The mean over the triplets, or over those that still cost something; 0 where there are none.

    `over_nonzero` keeps the gradient of batch-all from fading as more and more of its triplets are learned.
    """
    violation = triplets.positive - triplets.negative
    terms = functional.softplus(violation) if margin is None else functional.relu(margin + violation)
    counted = triplets.exists & (terms > 0) if over_nonzero else triplets.exists
    return torch.where(counted, terms, 0).sum() / counted.sum().clamp(min=1)
