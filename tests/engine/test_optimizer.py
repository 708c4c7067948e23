"""torch's optimisers without the compiler: the same steps, bit for bit, and no import of it."""

import subprocess
import sys

import pytest
import torch

from fewshot_runner.engine.optimizer import uncompiled

OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (torch.optim.RMSprop, {"lr": 0.01}),
]


def weights_after(optimizer_class, options, *, interrupted: bool = False) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2))
    optimizer = optimizer_class(model.parameters(), **options)
    images = torch.randn(16, 5)
    for step in range(6):
        if interrupted and step == 3:
            state = optimizer.state_dict()
            optimizer = optimizer_class(model.parameters(), **options)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        assert all(parameter.requires_grad for parameter in model.parameters())
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_steps_are_those_of_torch(optimizer, options, interrupted):
    expected = weights_after(optimizer, options)
    actual = weights_after(uncompiled(optimizer), options, interrupted=interrupted)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_what_is_no_optimiser_of_torch_stays_as_it_is():
    class Mine(torch.optim.SGD):
        pass

    for thing in (Mine, torch.nn.Linear, len):
        assert uncompiled(thing) is thing


def test_the_compiler_is_not_imported():
    code = """
import sys, torch
from fewshot_runner.engine.optimizer import uncompiled
weight = torch.nn.Parameter(torch.ones(2))
optimizer = uncompiled(torch.optim.AdamW)([weight], lr=0.1)
optimizer.zero_grad()
weight.sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert weight[0] < 1
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
