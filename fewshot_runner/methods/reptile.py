"""Reptile (Nichol, Achiam and Schulman 2018), https://arxiv.org/abs/1803.02999.

Some steps of ordinary training on a task make a network of its own for the task; the initial weights then move a
part of the way towards it. Averaged over tasks, this favours weights from which steps on one batch of a task lower
the loss on another. `backward` leaves initial minus adapted weights as the gradient, so that plain SGD makes the move
and its learning rate is the meta step.

Where we deviate: the head begins at zero in every task (see adaptation.py); inner batches hold the classes in turn
instead of by chance; at test time each step takes the whole support, so that its order does not matter.

Shapes: as in base.py. Reptile learns from an episode's support and queries alike: M = S + Q images of a task.
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
from fewshot_runner.methods.inner_adam import InnerAdam, Moments
from fewshot_runner.methods.side_by_side import of_each_task


class Reptile(Method):
    """`inner_steps` of `inner_batch` images each in training, `test_steps` in `classify`, all at the rate `inner_lr`.

    `inner_optimizer` is "sgd" or "adam", the latter without momentum, its second moments carried over from task to
    task. `inner_loss` is the "mean" or the "sum" over the images of a step.
    """

    learns_from = (Episode,)
    tasks_side_by_side: bool = True  # set by `Hardware`

    def __init__(
        self,
        backbone: nn.Module,
        *,
        inner_optimizer: str,
        inner_lr: float,
        inner_batch: int,
        inner_steps: int,
        inner_loss: str = "mean",
        test_steps: int,
    ) -> None:
        super().__init__()
        for key, value, choices in (
            ("inner_optimizer", inner_optimizer, ("adam", "sgd")),
            ("inner_loss", inner_loss, ("mean", "sum")),
        ):
            if value not in choices:
                raise UserError(f"{key}={value}: choose {choices[0]} or {choices[1]}")
        check_inner_loop(inner_lr=inner_lr, inner_batch=inner_batch, inner_steps=inner_steps, test_steps=test_steps)
        self.backbone = backbone
        self.inner_lr = inner_lr
        self.inner_batch = self.images_at_once = inner_batch
        self.inner_steps = inner_steps
        self.inner_loss = inner_loss
        self.test_steps = test_steps
        self.adam = InnerAdam(backbone) if inner_optimizer == "adam" else None

    def loss(self, batch: Episode) -> Tensor:
        """What an image costs on average while the tasks are learned. It has no gradient: see `backward`."""
        return self._learn(batch)[1]

    def backward(self, batch: Episode) -> dict[str, Tensor]:
        tasks, loss = self._learn(batch)
        starts = [self.backbone.get_parameter(name) for name in tasks[0].weights]
        ends = zip(*(task.weights.values() for task in tasks), strict=True)
        moves = (
            start.detach() - torch.stack(each).detach().mean(dim=0) for start, each in zip(starts, ends, strict=True)
        )
        add_to_gradients(starts, moves)
        return {"loss": loss}

    def classify(self, episode: Episode) -> Tensor:
        def adapt(task: TaskNetwork, support: Tensor, labels: Tensor) -> TaskNetwork:
            moments = self._moments()
            for _ in range(self.test_steps):
                task, _ = self._step(task, support, labels, moments)
            return task

        reach = self.inner_lr * self.test_steps
        return classify_adapted(
            self.backbone, episode, adapt, reach=reach, bn_mode=self.bn_mode, at_once=self.tasks_side_by_side
        )

    def _learn(self, batch: Episode) -> tuple[Sequence[TaskNetwork], Tensor]:
        """The fitted networks of the tasks, and the mean loss on the way."""
        images = torch.cat([batch.support, batch.query], dim=1)  # (E, M, C, H, W)
        labels = torch.cat([batch.support_labels, batch.query_labels], dim=1)  # (E, M)
        order = in_turn(labels, batch.n_way)
        moments = self._moments()

        def learn(backbone: nn.Module, e: int) -> tuple[TaskNetwork, Tensor]:
            task, losses = TaskNetwork.copy_of(backbone, batch.n_way, images=images), []
            for chosen in inner_batches(order[e], self.inner_batch, self.inner_steps):
                task, loss = self._step(task, images[e, chosen], labels[e, chosen], moments)
                losses.append(loss)
            return task, torch.stack(losses).mean()

        at_once = self.tasks_side_by_side and moments is None  # moments go on from task to task
        pass_size = self.inner_batch * images[0, 0].numel()
        learned = of_each_task(learn, len(order), self.backbone, images, pass_size=pass_size, at_once=at_once)
        tasks, losses = zip(*learned, strict=True)
        if self.training:
            absorb_statistics(self.backbone, [task.buffers for task in tasks])
            if self.adam is not None:
                self.adam.keep(moments)
        return tasks, torch.stack(losses).mean()

    def _moments(self) -> Moments | None:
        return None if self.adam is None else self.adam.moments()

    def _step(
        self, task: TaskNetwork, images: Tensor, labels: Tensor, moments: Moments | None
    ) -> tuple[TaskNetwork, Tensor]:
        """The network after one step on (B, C, H, W), and what an image cost before it."""
        task = task.cut()
        loss, gradients = task.gradients(images, labels, reduction=self.inner_loss)
        directions = gradients if moments is None else moments.directions(gradients)
        return task.moved(directions, scale=-self.inner_lr), loss / (len(images) if self.inner_loss == "sum" else 1)


def in_turn(labels: Tensor, n_way: int) -> Tensor:
    """The positions of labels (E, M) such that classes take turns: the first image of each, the second of each ..."""
    membership = functional.one_hot(labels, n_way)  # (E, M, N)
    # (E, M): 1 for the first image of a class, 2 for the second, ...
    rank = (membership.cumsum(dim=1) * membership).sum(dim=-1)
    return (rank * n_way + labels).argsort(dim=1)


def inner_batches(positions: Tensor, size: int, count: int) -> list[Tensor]:
    """`count` batches of `size` of the positions (M,), in their order and from the beginning again at the end."""
    n_images = len(positions)
    turns = -(-size * count // n_images)
    return list(positions.repeat(turns)[: size * count].split(size))
