"""Reptile and first-order MAML as usually written: a deep copy of the network for each task, trained by torch.optim.

Shapes: E tasks, S support images, Q queries, N ways.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode


def twin_of(backbone: nn.Module, features: int, n_way: int, lr: float) -> tuple[nn.Sequential, torch.optim.SGD]:
    """A copy with a head of zeros, and plain gradient descent for both."""
    head = nn.Linear(features, n_way, bias=False)
    nn.init.zeros_(head.weight)
    model = nn.Sequential(copy.deepcopy(backbone), head)
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def step(model: nn.Module, optimizer: torch.optim.SGD, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def maml(backbone: nn.Module, batch: Episode, *, features: int, inner_lr: float, inner_steps: int) -> None:
    """Leaves the mean over the tasks of the query loss's gradient, taken where each task arrived."""
    n_tasks = len(batch.support)
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for e in range(n_tasks):
        model, optimizer = twin_of(backbone, features, batch.n_way, inner_lr)
        for _ in range(inner_steps):
            step(model, optimizer, batch.support[e], batch.support_labels[e])
        optimizer.zero_grad()
        functional.cross_entropy(model(batch.query[e]), batch.query_labels[e]).backward()
        for parameter, fitted in zip(backbone.parameters(), model[0].parameters(), strict=True):
            parameter.grad += fitted.grad / n_tasks


def reptile(
    backbone: nn.Module, batch: Episode, order: Tensor, *, features: int, inner_lr: float, inner_steps: int,
    inner_batch: int,
) -> None:  # fmt: skip
    """Leaves the mean over the tasks of start minus end as the gradient; `order` (E, S + Q) is that of the images."""
    images = torch.cat([batch.support, batch.query], dim=1)  # (E, S + Q, C, H, W)
    labels = torch.cat([batch.support_labels, batch.query_labels], dim=1)  # (E, S + Q)
    n_tasks = len(images)
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for e in range(n_tasks):
        model, optimizer = twin_of(backbone, features, batch.n_way, inner_lr)
        for number in range(inner_steps):
            chosen = order[e, number * inner_batch : (number + 1) * inner_batch]
            step(model, optimizer, images[e, chosen], labels[e, chosen])
        for parameter, fitted in zip(backbone.parameters(), model[0].parameters(), strict=True):
            parameter.grad += (parameter - fitted).detach() / n_tasks
