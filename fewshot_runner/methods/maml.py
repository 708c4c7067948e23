"""Model-Agnostic Meta-Learning (Finn, Abbeel and Levine 2017), https://arxiv.org/abs/1703.03400.

A few steps of gradient descent on a task's support images make a network of its own for the task. What is learned is
where those steps start: the gradient of the query loss is taken through all of them. First-order MAML treats the
inner gradients as constants, which leaves out second derivatives.

Where we deviate: the head begins at zero in every task (see adaptation.py), so the first step moves the head alone.

Shapes: as in base.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.adaptation import (
    TaskNetwork,
    absorb_statistics,
    add_to_gradients,
    check_inner_loop,
    classify_adapted,
)
from fewshot_runner.methods.base import Method
from fewshot_runner.methods.side_by_side import T, Work, of_each_task
from fewshot_runner.models.precision import full_precision


class Maml(Method):
    """`order`: 2 for the full gradient, 1 for the first-order one; `inner_steps` of training, `test_steps` of
    `classify`, all with the whole support at the rate `inner_lr`.
    """

    learns_from = (Episode,)
    tasks_side_by_side: bool = True  # set by `Hardware`

    def __init__(
        self,
        backbone: nn.Module,
        *,
        order: int,
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        test_steps: int = 10,
    ) -> None:
        super().__init__()
        if order not in (1, 2):
            raise UserError(f"order={order}: choose 2 (second derivatives) or 1 (none)")
        check_inner_loop(inner_lr=inner_lr, inner_steps=inner_steps, test_steps=test_steps)
        self.backbone = backbone
        self.order = order
        self.differentiates_twice = order == 2
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps

    def loss(self, batch: Episode) -> Tensor:
        def loss_of(backbone: nn.Module, e: int) -> tuple[Tensor, dict[str, Tensor]]:
            return self._query_loss(backbone, batch[e : e + 1])

        losses, copies = zip(*self._of_each_task(loss_of, batch), strict=True)
        self._absorb(copies)
        return torch.stack(losses).mean()

    def backward(self, batch: Episode) -> dict[str, Tensor]:
        """Each task's graph is gone once its gradient is known."""
        learned = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

        def gradients_of(backbone: nn.Module, e: int) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, ...]]:
            loss, buffers = self._query_loss(backbone, batch[e : e + 1])
            with full_precision(loss):
                return loss.detach(), buffers, torch.autograd.grad(loss, learned)

        losses, copies, gradients = zip(*self._of_each_task(gradients_of, batch), strict=True)
        add_to_gradients(learned, (sum(each) / len(losses) for each in zip(*gradients, strict=True)))
        self._absorb(copies)
        return {"loss": torch.stack(losses).mean()}

    def classify(self, episode: Episode) -> Tensor:
        def adapt(task: TaskNetwork, support: Tensor, labels: Tensor) -> TaskNetwork:
            for _ in range(self.test_steps):
                task = self._step(task.cut(), support, labels)
            return task

        reach = self.inner_lr * self.test_steps
        return classify_adapted(
            self.backbone, episode, adapt, reach=reach, bn_mode=self.bn_mode, at_once=self.tasks_side_by_side
        )

    def _of_each_task(self, work: Work[T], batch: Episode) -> list[T]:
        return of_each_task(
            work, len(batch.support), self.backbone, batch.support,
            pass_size=max(batch.support[0].numel(), batch.query[0].numel()), at_once=self.tasks_side_by_side,
        )  # fmt: skip

    def _query_loss(self, backbone: nn.Module, batch: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        """What the queries of the one task in `batch` cost after adaptation, and the buffers of the copy."""
        task = TaskNetwork.copy_of(backbone, batch.n_way, images=batch.support)
        for _ in range(self.inner_steps):
            task = self._step(task, batch.support[0], batch.support_labels[0], create_graph=self.order == 2)
        return functional.cross_entropy(task.logits(batch.query[0]), batch.query_labels[0]), task.buffers

    def _step(self, task: TaskNetwork, support: Tensor, labels: Tensor, *, create_graph: bool = False) -> TaskNetwork:
        _, gradients = task.gradients(support, labels, create_graph=create_graph)
        return task.moved(gradients, scale=-self.inner_lr)

    def _absorb(self, copies: Sequence[dict[str, Tensor]]) -> None:
        if self.training:
            absorb_statistics(self.backbone, copies)
