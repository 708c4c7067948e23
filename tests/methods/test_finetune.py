"""The head of new classes against scipy's minimiser, the trained head against plain layers."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from fewshot_runner.data.batch import Batch
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.finetune import Finetune

FACTS = Facts(image_shape=(1, 4, 4), n_classes=3, n_way=3)


class Flat(nn.Module):
    out_features = 16

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def objective(weights: np.ndarray, features: np.ndarray, labels: np.ndarray, l2: float) -> float:
    """Class-balanced cross-entropy with a penalty, one image after the other."""
    n_classes = labels.max() + 1
    weights = weights.reshape(n_classes, -1)
    total = 0.0
    for feature, label in zip(features, labels, strict=True):
        scores = [float(feature @ row) for row in weights]
        log_sum = np.log(sum(np.exp(score) for score in scores))
        total += (log_sum - scores[label]) / (n_classes * (labels == label).sum())
    return total + l2 / 2 * (weights**2).sum()


@pytest.mark.parametrize("l2", [1e-1, 1e-2])
def test_the_fitted_head_is_the_minimum_that_scipy_finds(l2: float) -> None:
    random = torch.Generator().manual_seed(0)
    support = functional.normalize(torch.randn(2, 7, 5, generator=random, dtype=torch.float64), dim=-1)
    labels = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [2, 1, 0, 0, 0, 0, 1]])
    weight = Finetune(FACTS, Flat(), fit_l2=l2, fit_steps=500).fit_head(support, labels, 3)
    for fitted, features, of in zip(weight, support, labels, strict=True):
        found = minimize(objective, np.zeros(15), args=(features.numpy(), of.numpy(), l2), tol=1e-12)
        np.testing.assert_allclose(fitted.flatten().numpy(), found.x, atol=1e-5)


def test_the_default_fit_is_as_good_as_converged() -> None:
    """200 steps at the default penalty: the loss is within 1 % of scipy's."""
    random = torch.Generator().manual_seed(1)
    centres = torch.randn(3, 8, generator=random, dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(4)
    noise = torch.randn(12, 8, generator=random, dtype=torch.float64)
    support = functional.normalize(centres[labels] + 0.5 * noise, dim=-1)
    weight = Finetune(FACTS, Flat()).fit_head(support[None], labels[None], 3)[0]
    arguments = (support.numpy(), labels.numpy(), 1e-3)
    least = minimize(objective, np.zeros(24), args=arguments, tol=1e-12).fun
    assert least < objective(weight.flatten().numpy(), *arguments) < 1.01 * least


def test_the_trained_head_answers_known_classes() -> None:
    method = Finetune(FACTS, Flat(), hidden=6, dropout=0.5).eval()
    first, _, _, last = method.head
    images = torch.rand(4, 1, 4, 4)
    features = images.flatten(1)
    expected = last(torch.relu(features @ first.weight.T + first.bias))
    torch.testing.assert_close(method.recognise(images), expected)
    labels = torch.tensor([0, 2, 1, 1])
    probabilities = expected.exp() / expected.exp().sum(dim=1, keepdim=True)
    loss = -probabilities[range(4), labels].log().mean()
    torch.testing.assert_close(method.loss(Batch(images, labels, torch.zeros(4, dtype=torch.long))), loss)


@pytest.mark.parametrize("hidden", [0, 6])
def test_the_trained_head_is_exact_where_the_network_is_not(hidden: int) -> None:
    """In bfloat16, logits of a few hundred classes would often be equal."""
    torch.manual_seed(0)
    method = Finetune(Facts(image_shape=(1, 4, 4), n_classes=300, n_way=3), Flat(), hidden=hidden).eval()
    images, labels = torch.rand(8, 1, 4, 4), torch.arange(8)
    batch = Batch(images, labels, torch.zeros(8, dtype=torch.long))
    exact, exact_loss = method.recognise(images), method.loss(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, mixed_loss = method.recognise(images.bfloat16()), method.loss(batch)
    assert mixed.dtype == torch.float32
    rounded = method.recognise(images.bfloat16().float())  # what the network itself rounds is not the head's affair
    torch.testing.assert_close(mixed, rounded, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mixed, exact, rtol=0, atol=0.05)
    torch.testing.assert_close(mixed_loss, exact_loss, rtol=1e-6, atol=1e-6)
    assert all(len(set(row)) == 300 for row in mixed.tolist())


@pytest.mark.parametrize("hidden", [0, 6])
def test_so_is_its_gradient(hidden: int) -> None:
    torch.manual_seed(0)
    method = Finetune(FACTS, Flat(), hidden=hidden).eval()
    images, labels = torch.rand(8, 1, 4, 4), torch.randint(3, (8,))
    batch = Batch(images.bfloat16().float(), labels, torch.zeros(8, dtype=torch.long))
    method.backward(batch)
    exact = [parameter.grad.clone() for parameter in method.parameters()]
    method.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.backward(batch)
    for parameter, expected in zip(method.parameters(), exact, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-7)


def test_a_linear_head_has_one_layer() -> None:
    method = Finetune(FACTS, Flat(), hidden=0)
    assert [tuple(p.shape) for p in method.head.parameters()] == [(3, 16), (3,)]


@pytest.mark.parametrize("wrong", [{"hidden": -1}, {"dropout": 1.0}, {"fit_steps": 0}, {"fit_l2": 0.0}])
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Finetune(FACTS, Flat(), **wrong)
