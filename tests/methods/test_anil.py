"""ANIL against a slow loop with torch's optimiser, MAML with all but the head left out, and hand arithmetic.

Shapes: E episodes, S support images, N ways, D features.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.data.batch import Episode
from fewshot_runner.errors import UserError
from fewshot_runner.methods.anil import Anil

N, D = 3, 5


class Plain(nn.Module):
    out_features = D

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, D)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(vectors).tanh()


def episode(*, shots: tuple[int, ...] = (2, 2, 2)) -> Episode:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(N).repeat_interleave(torch.tensor(shots)).repeat(2, 1)
    marks = torch.randn(N, 4, generator=generator)
    support, query = (marks[labels] + 0.3 * torch.randn(*labels.shape, 4, generator=generator) for _ in range(2))
    return Episode(support, labels, query, labels, N)


@pytest.mark.parametrize("shots", [(2, 2, 2), (1, 2, 4)])
def test_the_head_equals_one_trained_by_torch(shots: tuple[int, ...]) -> None:
    batch = episode(shots=shots)
    heads = Anil(Plain(), inner_lr=0.7).fit_head(batch.support, batch.support_labels, N, steps=6)  # (E, N, 4)
    for e in range(2):
        layer = nn.Linear(4, N, bias=False)
        nn.init.zeros_(layer.weight)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.7)
        for _ in range(6):
            optimizer.zero_grad()
            functional.cross_entropy(layer(batch.support[e]), batch.support_labels[e]).backward()
            optimizer.step()
        torch.testing.assert_close(heads[e], layer.weight.detach(), rtol=1e-4, atol=1e-6)


def test_one_step_by_hand() -> None:
    """Two ways, one image each at +1 and -1: errors of 1/2, so the rows become +-lr / 2."""
    head = Anil(Plain(), inner_lr=0.4).fit_head(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[0, 1]]), 2, steps=1)
    torch.testing.assert_close(head, torch.tensor([[[0.2], [-0.2]]]))


def test_the_gradient_runs_through_the_fit() -> None:
    """Against autograd through a loop that asks autograd for the inner gradients too."""
    batch, method = episode(), Anil(Plain(), inner_lr=0.7, inner_steps=3)
    total = 0.0
    for e in range(2):
        head = torch.zeros(N, D, requires_grad=True)
        support, query = method.backbone(batch.support[e]), method.backbone(batch.query[e])
        for _ in range(3):
            inner = functional.cross_entropy(support @ head.T, batch.support_labels[e])
            head = head - 0.7 * torch.autograd.grad(inner, head, create_graph=True)[0]
        total = total + functional.cross_entropy(query @ head.T, batch.query_labels[e]) / 2
    expected = torch.autograd.grad(total, list(method.parameters()))
    figures = method.backward(batch)
    assert figures["loss"].item() == pytest.approx(total.item(), rel=1e-5)
    for parameter, gradient in zip(method.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_classify_takes_its_own_number_of_steps() -> None:
    batch = episode()
    losses = [
        functional.cross_entropy(
            Anil(Plain(), inner_lr=0.7, inner_steps=1, test_steps=steps).classify(batch).flatten(0, 1),
            batch.query_labels.flatten(),
        ).item()
        for steps in (1, 8)
    ]
    assert losses[1] < losses[0] < math.log(3)


@pytest.mark.parametrize(("key", "value"), [("inner_lr", 0.0), ("inner_steps", 0), ("test_steps", 0)])
def test_options_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{key}={value}"):
        Anil(SimpleNamespace(), **{key: value})
