"""Almost No Inner Loop (Raghu et al. 2020), https://arxiv.org/abs/1909.09157.

MAML whose inner loop moves the head alone: features are as good when only their use is fitted to a task. The steps
are those of softmax regression, so their gradient is written out, tasks are fitted together, and images are embedded
once.

Where we deviate: the head begins at zero in every task (see adaptation.py).

Shapes: as in base.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.methods.adaptation import check_inner_loop
from fewshot_runner.methods.base import EmbeddingMethod, round_logits
from fewshot_runner.models.precision import finest, full_precision

ROUNDING = 2**-26  # of the largest logits that the steps can reach: at 1,280 features each multiplies errors by some 60


class Anil(EmbeddingMethod):
    """`inner_steps` of training and `test_steps` of `classify`, with the whole support at the rate `inner_lr`."""

    learns_from = (Episode,)
    compares_pairs = False

    def __init__(
        self, backbone: nn.Module, *, inner_lr: float = 0.1, inner_steps: int = 5, test_steps: int = 5
    ) -> None:
        super().__init__()
        check_inner_loop(inner_lr=inner_lr, inner_steps=inner_steps, test_steps=test_steps)
        self.backbone = backbone
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps

    def loss(self, batch: Episode) -> Tensor:
        """The query loss of the fitted heads; its gradient runs through the fit, second derivatives included."""
        features = batch.map(self.embed)
        with full_precision(features.support):
            head = self.fit_head(features.support, features.support_labels, batch.n_way, steps=self.inner_steps)
            logits = features.query @ head.mT  # (E, Q, N)
            return functional.cross_entropy(logits.flatten(0, 1), batch.query_labels.flatten())

    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        dtype = finest(query)
        with full_precision(query):
            support, fine = support.to(dtype), query.to(dtype)
            head = self.fit_head(support, support_labels, n_way, steps=self.test_steps)
            longest = support.norm(dim=-1).amax(dim=-1)[:, None, None]  # (E, 1, 1)
            reach = self.inner_lr * self.test_steps * longest * fine.norm(dim=-1, keepdim=True)  # (E, Q, 1)
            unit = torch.where(reach > 0, ROUNDING * reach, 1).detach()
            return round_logits(fine @ head.mT, unit).to(query.dtype)  # (E, Q, N)

    def fit_head(self, support: Tensor, support_labels: Tensor, n_way: int, *, steps: int) -> Tensor:
        """Features (E, S, D) and labels (E, S) to the weights (E, N, D) after `steps` of gradient descent from 0."""
        right = functional.one_hot(support_labels, n_way).to(support.dtype)  # (E, S, N)
        head = support.new_zeros(len(support), n_way, support.shape[-1])
        for _ in range(steps):
            excess = torch.softmax(support @ head.mT, dim=-1) - right  # (E, S, N), the loss by the logits
            head = head - self.inner_lr / support.shape[1] * excess.mT @ support  # (E, N, D)
        return head
