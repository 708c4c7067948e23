"""The answers of MAML and Reptile against a plain loop of PyTorch's own optimisers over the support.

Shapes: E episodes, N ways, D features.
"""

import pytest
import torch
from inner_loops import backbone, centred, episode, fitted_by_optimiser
from torch import Tensor

from fewshot_runner.methods.maml import Maml
from fewshot_runner.methods.reptile import Reptile

STEPS = {"inner_steps": 2, "test_steps": 5}


@pytest.mark.parametrize("order", [1, 2])
def test_maml_answers_as_a_network_that_sgd_fitted_for_all_test_steps(order: int) -> None:
    network, tasks = backbone(), episode()
    logits = Maml(network, order=order, inner_lr=0.1, **STEPS).eval().classify(tasks)
    for e in range(2):
        model = fitted_by_optimiser(network, tasks.support[e], tasks.support_labels[e], n_way=3, lr=0.1, steps=5)
        check(logits[e], model.eval()(tasks.query[e]))


@pytest.mark.parametrize(("reduction", "lr"), [("mean", 0.1), ("sum", 0.03)])
def test_reptile_answers_as_a_network_that_sgd_fitted_for_all_test_steps(reduction: str, lr: float) -> None:
    """Each step takes the whole support, though batches of training are smaller."""
    network, tasks = backbone(), episode()
    options = {"inner_optimizer": "sgd", "inner_lr": lr, "inner_batch": 4, "inner_loss": reduction, **STEPS}
    logits = Reptile(network, **options).eval().classify(tasks)
    for e in range(2):
        model = fitted_by_optimiser(
            network, tasks.support[e], tasks.support_labels[e], n_way=3, lr=lr, steps=5, reduction=reduction
        )
        check(logits[e], model.eval()(tasks.query[e]))


def test_reptile_answers_as_a_network_that_adam_fitted_from_the_kept_moments() -> None:
    """Of two ways: the head's rows then have opposite gradients, and plain Adam gives them equal squares as well."""
    network, tasks = backbone(), episode(n_way=2)
    method = Reptile(network, inner_optimizer="adam", inner_lr=0.02, inner_batch=4, **STEPS).eval()
    generator = torch.Generator().manual_seed(3)
    shapes = [*(weight.shape for weight in network.parameters()), (network.out_features,)]
    squares = [1e-4 + 1e-3 * torch.rand(shape, generator=generator) for shape in shapes]  # the head's (D,) last
    for number, square in enumerate(squares):
        method.adam.get_buffer(f"square_{number}").copy_(square)
    method.adam.count.fill_(7)
    logits = method.classify(tasks)
    for e in range(2):  # a task leaves no moments to the next
        model = fitted_by_optimiser(
            network, tasks.support[e], tasks.support_labels[e], n_way=2, lr=0.02, steps=5, squares=squares, count=7
        )
        check(logits[e], model.eval()(tasks.query[e]))


def check(logits: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1, "nothing was learned"
    torch.testing.assert_close(logits.detach(), centred(expected.detach()), rtol=1e-3, atol=1e-4)
