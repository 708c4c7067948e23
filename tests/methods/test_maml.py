"""MAML against gradients worked out by hand, finite differences and a slow loop over deep copies.

Shapes: S support images, Q queries, N ways, D features.
"""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.maml import Maml
from fewshot_runner.models import conv_block
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.models.conv4_strided import Conv4Strided


class Scaled(nn.Module):
    """Numbers (B, 1) times one weight: the smallest network there is to meta-learn."""

    out_features = 1

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.double))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.weight * numbers


class Smooth(nn.Module):
    """Twice differentiable everywhere, as finite differences need it."""

    out_features = 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3).double()

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(vectors).tanh()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("order", "steps"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_gradient_by_hand(order: int, steps: int) -> None:
    """Two ways, one support image each at +1 and -1, one query at q of class 0, features w x.

    Rows (h, -h) of the head stay opposite, so the logits of x differ by z = 2 h w x, and both support images cost
    log(1 + exp(-2 h w)). With r = sigmoid(-2 h w), the mean loss has the slope -w r by the upper row (the lower takes
    its opposite) and -2 h r by w. From (w0, 0), r is 1/2: the first step leads to h1 = a w0 / 2 and leaves w alone.
    The second leads to h2 = h1 + a w0 r and w2 = w0 + 2 a h1 r with r = sigmoid(-2 h1 w0).

    The query costs log(1 + exp(-z)), z = 2 h w q, of slope -sigmoid(-z) by z.
    """
    w, a, q = 0.8, 0.5, 0.7
    h1 = a * w / 2
    if steps == 1:
        z, full = 2 * h1 * w * q, 2 * a * w * q  # z = a w^2 q
        first = 2 * h1 * q  # with h1 as a constant
    else:
        r = sigmoid(-2 * h1 * w)  # of a w^2
        dr = -r * (1 - r) * 2 * a * w  # by w
        h2, w2 = h1 + a * w * r, w + 2 * a * h1 * r
        dh2, dw2 = a / 2 + a * r + a * w * dr, 1 + a * a * (r + w * dr)  # 2 a h1 r = a^2 w r
        z, full = 2 * h2 * w2 * q, 2 * q * (dh2 * w2 + h2 * dw2)
        first = 2 * h2 * q  # w2 = w + a constant, h2 = a constant
    expected = -sigmoid(-z) * (full if order == 2 else first)

    backbone = Scaled(w)
    method = Maml(backbone, order=order, inner_lr=a, inner_steps=steps)
    figures = method.backward(
        Episode(
            support=torch.tensor([[[1.0], [-1.0]]], dtype=torch.double),
            support_labels=torch.tensor([[0, 1]]),
            query=torch.tensor([[[q]]], dtype=torch.double),
            query_labels=torch.tensor([[0]]),
            n_way=2,
        )
    )
    assert figures["loss"].item() == pytest.approx(math.log(1 + math.exp(-z)), rel=1e-12)
    assert backbone.weight.grad.item() == pytest.approx(expected, rel=1e-10)


def vectors(*, n_episodes: int = 2, n_way: int = 3, shots: int = 2) -> Episode:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(n_way).repeat_interleave(shots).repeat(n_episodes, 1)
    marks = torch.randn(n_way, 4, generator=generator, dtype=torch.double)

    def noisy() -> Tensor:
        return marks[labels] + 0.3 * torch.randn(*labels.shape, 4, generator=generator, dtype=torch.double)

    return Episode(noisy(), labels, noisy(), labels, n_way)


def test_second_order_equals_finite_differences() -> None:
    backbone, episode = Smooth(), vectors()
    method = Maml(backbone, order=2, inner_lr=0.4, inner_steps=3)
    method.backward(episode)
    for parameter in backbone.parameters():
        flat = parameter.data.view(-1)
        for position in range(len(flat)):
            kept, values = flat[position].item(), []
            for shift in (1e-6, -1e-6):
                flat[position] = kept + shift
                values.append(method.loss(episode).item())
            flat[position] = kept
            difference = (values[0] - values[1]) / 2e-6
            assert parameter.grad.view(-1)[position].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def slow_first_order(backbone: nn.Module, episode: Episode, *, lr: float, steps: int) -> tuple[list[Tensor], float]:
    """Deep copies trained by torch.optim; the gradient of the query loss by the copy's weights, averaged."""
    n_tasks = len(episode.support)
    gradients, total = [torch.zeros_like(p) for p in backbone.parameters()], 0.0
    for e in range(n_tasks):
        twin = copy.deepcopy(backbone)
        head = nn.Linear(backbone.out_features, episode.n_way, bias=False).to(next(twin.parameters()).dtype)
        nn.init.zeros_(head.weight)
        model = nn.Sequential(twin, head)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(model(episode.support[e]), episode.support_labels[e]).backward()
            optimizer.step()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(episode.query[e]), episode.query_labels[e])
        loss.backward()
        total += loss.item() / n_tasks
        for gradient, parameter in zip(gradients, twin.parameters(), strict=True):
            gradient += parameter.grad / n_tasks
    return gradients, total


def images(n_way: int = 3) -> Episode:
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(n_way).repeat_interleave(2).repeat(2, 1)
    marks = torch.rand(n_way, 1, 8, 8, generator=generator)
    support, query = (marks[labels] + 0.5 * torch.rand(2, 2 * n_way, 1, 8, 8, generator=generator) for _ in range(2))
    return Episode(support, labels, query, labels, n_way)


def conv() -> Conv4Strided:
    torch.manual_seed(0)
    return Conv4Strided(Facts(image_shape=(1, 8, 8), n_classes=9, n_way=3), widths=(4, 6))


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_equals_a_slow_loop_over_deep_copies(steps: int) -> None:
    backbone, episode = conv(), images()
    expected, loss = slow_first_order(backbone, episode, lr=0.2, steps=steps)
    method = Maml(backbone, order=1, inner_lr=0.2, inner_steps=steps)
    figures = method.backward(episode)
    assert figures["loss"].item() == pytest.approx(loss, rel=1e-4)
    for parameter, gradient in zip(backbone.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_backward_equals_the_gradient_of_the_loss(order: int) -> None:
    episode, gradients = images(), []
    for whole in (True, False):
        method = Maml(conv(), order=order, inner_lr=0.2, inner_steps=2)
        if whole:
            method.loss(episode).backward()
        else:
            method.backward(episode)
        gradients.append([parameter.grad for parameter in method.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-7)


def test_second_order_keeps_its_gradient_where_blocks_are_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The query pass is fused, and its statistics are those that the inner steps' graph has kept."""
    shape = Facts(image_shape=(1, 8, 8), n_classes=9, n_way=3)
    found = []
    for least in (2**20, 0):
        monkeypatch.setattr(conv_block, "LEAST_VALUES", least)
        torch.manual_seed(0)
        method = Maml(Conv4(shape, widths=(4, 6)).double(), order=2, inner_lr=0.2, inner_steps=2)
        batch = images()
        method.backward(replace(batch, support=batch.support.double(), query=batch.query.double()))
        found.append([*(p.grad for p in method.parameters()), *method.buffers()])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)


def test_statistics_are_learned_in_training_alone() -> None:
    method = Maml(conv(), order=2, inner_lr=0.2, inner_steps=2)
    layer = method.backbone.blocks[0][1]
    method.eval().backward(images())
    assert layer.running_mean.eq(0).all()
    method.train().backward(images())
    assert layer.running_mean.ne(0).all()


def test_classify_takes_its_own_number_of_steps() -> None:
    episode = vectors()
    answers = {steps: Maml(Smooth(), order=2, inner_lr=0.4, inner_steps=1, test_steps=steps).classify(episode)
               for steps in (1, 8)}  # fmt: skip
    losses = {steps: functional.cross_entropy(logits.flatten(0, 1), episode.query_labels.flatten()).item()
              for steps, logits in answers.items()}  # fmt: skip
    assert losses[8] < losses[1] < math.log(3)


@pytest.mark.parametrize(("key", "value"), [("order", 3), ("inner_lr", 0.0), ("inner_steps", 0), ("test_steps", 0)])
def test_options_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{key}={value}"):
        Maml(SimpleNamespace(), **{"order": 1, key: value})
