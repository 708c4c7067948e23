"""Transfer learning: a backbone, frozen or not, and a new head trained on labelled images by negative log likelihood.

For classes of its training the trained head answers. For new classes a linear head is fitted on the support features,
the "Baseline" of A Closer Look at Few-shot Classification (Chen et al. 2019), https://arxiv.org/abs/1904.04232.

Where we deviate: the new head is a logistic regression on features of unit length, fitted by full-batch accelerated
gradient descent from zero, so that it depends neither on a seed nor on the order of the support. Each class weighs the
same however many images it has.

Shapes: as in base.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import Classifier, EmbeddingMethod, class_means, round_logits
from fewshot_runner.models.precision import full_precision

TIE = 2**-20  # at a small penalty: some 30 times what rounding adds where features are equal and weights should be 0
LIPSCHITZ = 0.5  # of the gradient of softmax regression on features of length 1 (Böhning 1992)


class Finetune(EmbeddingMethod, Classifier):
    """`hidden` and `dropout`: the trained head, hidden 0 for a linear one. `fit_steps` and `fit_l2`: of a new head."""

    learns_from = (Batch,)
    compares_pairs = False

    def __init__(
        self,
        facts: Facts,
        backbone: nn.Module,
        *,
        hidden: int = 256,
        dropout: float = 0.4,
        fit_steps: int = 200,
        fit_l2: float = 1e-3,
    ) -> None:
        super().__init__()
        if hidden < 0 or not 0 <= dropout < 1:
            raise UserError(
                f"hidden={hidden}, dropout={dropout}: give 0 (a linear head) or a number of units, and a share of them "
                "from 0 to below 1"
            )
        if fit_steps < 1 or fit_l2 <= 0:
            raise UserError(f"fit_steps={fit_steps}, fit_l2={fit_l2}: give 1 step or more and a penalty above 0")
        self.backbone = backbone
        self.fit_steps = fit_steps
        self.fit_l2 = fit_l2
        features = backbone.out_features
        layers: list[nn.Module] = [nn.Linear(hidden or features, facts.n_classes)]
        if hidden:
            layers = [nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), *layers]
        self.head = nn.Sequential(*layers)

    def recognise(self, images: Tensor) -> Tensor:
        features = self.embed(images)
        with full_precision(features):
            return self.head(features)  # (B, n_classes)

    def loss(self, batch: Batch) -> Tensor:
        return functional.cross_entropy(self.recognise(batch.images), batch.labels)

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        support, query = functional.normalize(support, dim=-1), functional.normalize(query, dim=-1)
        with full_precision(query):
            weight = self.fit_head(support, support_labels, n_way)  # (E, N, D)
            return round_logits(query @ weight.mT, TIE * LIPSCHITZ / (LIPSCHITZ + self.fit_l2))  # (E, Q, N)

    @torch.no_grad()
    def fit_head(self, support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
        """Weights (E, N, D) that minimise the class-balanced cross-entropy on (E, S, D) plus l2 / 2 |W|^2.

        Nesterov's method for strongly convex functions; the step and the momentum follow from the curvature's bounds.
        """
        means = class_means(support, support_labels, n_way) / n_way  # (E, N, D): what the right answers pull towards
        counts = functional.one_hot(support_labels, n_way).sum(dim=1).to(support.dtype)  # (E, N)
        share = 1 / (n_way * counts.gather(1, support_labels))  # (E, S): of each image; an episode's sum to 1
        bound = LIPSCHITZ + self.fit_l2
        ratio = (self.fit_l2 / bound) ** 0.5
        momentum = (1 - ratio) / (1 + ratio)
        weight = ahead = torch.zeros_like(means)
        for _ in range(self.fit_steps):
            answers = (support @ ahead.mT).softmax(dim=-1) * share[..., None]  # (E, S, N)
            gradient = answers.mT @ support - means + self.fit_l2 * ahead  # (E, N, D)
            before, weight = weight, ahead - gradient / bound
            ahead = weight + momentum * (weight - before)
        return weight
