"""Reptile against a slow loop over deep copies, torch's own optimisers and hand arithmetic.

Shapes: E episodes, M images of a task, N ways, D features.
"""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.reptile import Reptile, in_turn, inner_batches
from fewshot_runner.models.conv4_strided import Conv4Strided

N = 3


def conv() -> Conv4Strided:
    torch.manual_seed(0)
    return Conv4Strided(Facts(image_shape=(1, 8, 8), n_classes=9, n_way=N), widths=(4, 6))


def images() -> Episode:
    """Two tasks with 2 support and 2 query images a class, queries in mixed order."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(N).repeat_interleave(2).repeat(2, 1)
    query_labels = torch.tensor([[2, 0, 1, 1, 0, 2], [0, 1, 1, 2, 2, 0]])
    marks = torch.rand(N, 1, 8, 8, generator=generator)
    support, query = (
        marks[which] + 0.5 * torch.rand(2, 6, 1, 8, 8, generator=generator) for which in (labels, query_labels)
    )
    return Episode(support, labels, query, query_labels, N)


def slow_in_turn(labels: list[int]) -> list[int]:
    """Deals out the images of each class, one class after the other."""
    piles = [[i for i, label in enumerate(labels) if label == way] for way in range(N)]
    order = []
    while any(piles):
        order += [pile.pop(0) for pile in piles if pile]
    return order


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 1, 1, 2, 2], [2, 1, 0, 2, 1, 0, 0, 1, 2], [1, 0, 1, 1, 2, 1], [2, 2, 0, 1]],  # also unequal shots
)
def test_classes_take_turns(labels: list[int]) -> None:
    both = torch.tensor([labels, labels[::-1]])
    expected = [slow_in_turn(labels), slow_in_turn(labels[::-1])]
    assert in_turn(both, N).tolist() == expected


def test_inner_batches_by_hand() -> None:
    positions = torch.tensor([5, 3, 1, 4, 2])
    assert [batch.tolist() for batch in inner_batches(positions, 2, 4)] == [[5, 3], [1, 4], [2, 5], [3, 1]]
    assert [batch.tolist() for batch in inner_batches(positions, 7, 1)] == [[5, 3, 1, 4, 2, 5, 3]]


def slow_reptile(
    backbone: nn.Module, batch: Episode, *, optimizer: str, lr: float, size: int, steps: int, reduction: str
) -> list[Tensor]:
    """The moves of a deep copy trained by torch.optim, averaged over the tasks; the optimiser's state goes on."""
    moves, squares = [torch.zeros_like(p) for p in backbone.parameters()], None
    for e in range(len(batch.support)):
        twin = copy.deepcopy(backbone)
        head = nn.Parameter(torch.zeros(N, backbone.out_features))
        weights = [*twin.parameters(), head]
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
        inner = kind(weights, lr=lr, **({"betas": (0.0, 0.999)} if optimizer == "adam" else {}))
        if squares is not None:
            for weight, state in zip(weights, squares, strict=True):
                inner.state[weight] = state
        pictures = torch.cat([batch.support[e], batch.query[e]])
        labels = torch.cat([batch.support_labels[e], batch.query_labels[e]])
        order = slow_in_turn(labels.tolist()) * steps
        for step in range(steps):
            chosen = order[step * size : (step + 1) * size]
            inner.zero_grad()
            logits = twin(pictures[chosen]) @ head.T
            functional.cross_entropy(logits, labels[chosen], reduction=reduction).backward()
            inner.step()
        if optimizer == "adam":
            squares = [inner.state[weight] for weight in weights]
        for move, start, end in zip(moves, backbone.parameters(), twin.parameters(), strict=True):
            move += (start - end).detach() / len(batch.support)
    return moves


@pytest.mark.parametrize(
    ("optimizer", "reduction", "size", "steps"),
    [("sgd", "mean", 6, 2), ("sgd", "sum", 5, 4), ("sgd", "mean", 6, 1)],
)
def test_the_gradient_is_the_mean_move_of_a_slow_loop(optimizer: str, reduction: str, size: int, steps: int) -> None:
    backbone, batch = conv(), images()
    expected = slow_reptile(backbone, batch, optimizer=optimizer, lr=0.05, size=size, steps=steps, reduction=reduction)
    method = Reptile(
        backbone, inner_optimizer=optimizer, inner_lr=0.05, inner_batch=size, inner_steps=steps, inner_loss=reduction,
        test_steps=5,
    )  # fmt: skip
    method.backward(batch)
    for parameter, move in zip(backbone.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, move, rtol=1e-3, atol=1e-6)
    assert steps == 1 or any(move.abs().max() > 1e-4 for move in expected)


def test_with_adam_a_task_goes_on_with_the_moments_of_the_last() -> None:
    """A meta-batch of two tasks moves as two meta-batches of one whose weights are put back in between."""
    batch = images()
    options = {"inner_optimizer": "adam", "inner_lr": 0.01, "inner_batch": 6, "inner_steps": 3, "test_steps": 5}
    together, apart = (Reptile(conv(), **options).train() for _ in range(2))
    together.backward(batch)
    buffers = {name: buffer.clone() for name, buffer in apart.backbone.named_buffers()}
    moves = []
    for e in range(2):
        apart.zero_grad()
        apart.backward(batch[e : e + 1])
        moves.append([parameter.grad for parameter in apart.backbone.parameters()])
        for name, buffer in apart.backbone.named_buffers():
            buffer.copy_(buffers[name])
    for parameter, first, second in zip(together.backbone.parameters(), *moves, strict=True):
        torch.testing.assert_close(parameter.grad, (first + second) / 2)
    assert together.adam.count == apart.adam.count == 6
    assert not torch.allclose(moves[0][0], moves[1][0])


def test_sgd_takes_the_published_meta_step() -> None:
    """weights + step (adapted - weights)."""
    backbone, batch = conv(), images()
    start = [parameter.detach().clone() for parameter in backbone.parameters()]
    moves = slow_reptile(backbone, batch, optimizer="sgd", lr=0.1, size=6, steps=3, reduction="mean")
    method = Reptile(backbone, inner_optimizer="sgd", inner_lr=0.1, inner_batch=6, inner_steps=3, test_steps=5)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.25)
    method.backward(batch)
    optimizer.step()
    for parameter, before, move in zip(backbone.parameters(), start, moves, strict=True):
        adapted = before - move
        torch.testing.assert_close(parameter.detach(), before + 0.25 * (adapted - before), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_training_keeps_beside_weights_is_kept_in_training_alone(optimizer: str) -> None:
    method = Reptile(conv(), inner_optimizer=optimizer, inner_lr=1e-3, inner_batch=6, inner_steps=2, test_steps=5)
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    method.eval().backward(images())
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.named_buffers())
    method.train().backward(images())
    assert all(not torch.equal(buffer, before[name]) for name, buffer in method.named_buffers())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_that_of_an_image(reduction: str) -> None:
    """The first step of a task costs log N an image, whichever way the images of a batch are reduced."""
    options = {"inner_optimizer": "adam", "inner_lr": 0.01, "inner_batch": 5, "inner_steps": 1, "test_steps": 5}
    method = Reptile(conv(), **options, inner_loss=reduction)
    assert method.loss(images()).item() == pytest.approx(torch.tensor(3.0).log().item(), rel=1e-5)


def test_repeated_tasks_are_learned() -> None:
    batch = images()
    method = Reptile(conv(), inner_optimizer="sgd", inner_lr=0.3, inner_batch=6, inner_steps=4, test_steps=5)
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(method.backward(batch)["loss"].item())
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    method.bn_mode = "support"
    assert method.classify(batch).argmax(-1).eq(batch.query_labels).float().mean() > 0.9


@pytest.mark.parametrize(
    ("key", "value"),
    [("inner_optimizer", "rmsprop"), ("inner_loss", "max"), ("inner_lr", 0.0), ("inner_batch", 0), ("inner_steps", 0),
     ("test_steps", 0)],
)  # fmt: skip
def test_options_out_of_range_are_refused(key: str, value: float | str) -> None:
    allowed = {"inner_optimizer": "sgd", "inner_lr": 0.1, "inner_batch": 6, "inner_steps": 3, "test_steps": 5}
    with pytest.raises(UserError, match=rf"{key}={value}"):
        Reptile(SimpleNamespace(), **allowed | {key: value})
