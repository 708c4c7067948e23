"""Schedules against closed forms, by themselves and in the training loop."""

import math

import pytest
import torch

from fewshot_runner.engine.fit import fit
from fewshot_runner.engine.schedule import Constant, Cosine, Exponential, Linear, LinearFrom
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.errors import UserError


def test_trap_15_factors_do_not_compound() -> None:
    """`rate *= 0.99 ** epoch` would be at 0.99 ** 1275 = 0.0000027 by epoch 50."""
    schedule = Exponential(factor=0.99, every=100)
    assert schedule(1.0, 50 * 100, 10_000) == pytest.approx(0.6050060671, rel=1e-9)
    assert schedule(1.0, 50 * 100 + 99, 10_000) == schedule(1.0, 50 * 100, 10_000)
    assert schedule(1.0, 99, 10_000) == 1.0
    assert schedule(1.0, 100, 10_000) == 0.99


def test_trap_15_the_rate_of_a_step_does_not_depend_on_what_was_asked_before() -> None:
    for schedule in (Constant(), Cosine(warmup=10, floor=0.1), Exponential(factor=0.99, every=3), Linear(steps=40)):
        forwards = [schedule(1.0, step, 100) for step in range(100)]
        assert [schedule(1.0, step, 100) for step in reversed(range(100))] == forwards[::-1]


def test_cosine_by_hand() -> None:
    schedule = Cosine(floor=0.2)
    assert schedule(1.0, 0, 90) == 1.0
    assert schedule(1.0, 30, 90) == pytest.approx(0.2 + 0.8 * 0.75)  # cos 60 degrees = 1/2
    assert schedule(1.0, 45, 90) == pytest.approx(0.6)
    assert schedule(1.0, 90, 90) == pytest.approx(0.2)
    assert Cosine()(1.0, 90, 90) == pytest.approx(0.0)


def test_warmup_rises_to_the_base_rate() -> None:
    schedule = Cosine(warmup=4)
    assert [schedule(1.0, step, 104) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(1.0, 54, 104) == pytest.approx(0.5)
    assert schedule(1.0, 104, 104) == pytest.approx(0.0)
    assert all(math.isfinite(Cosine(warmup=10)(1.0, step, 10)) for step in range(11))


def test_constant() -> None:
    assert {Constant()(1.0, step, 10) for step in range(10)} == {1.0}


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (Cosine, {"warmup": -1}),
        (Cosine, {"floor": 1.5}),
        (Exponential, {"factor": 0.0, "every": 1}),
        (Exponential, {"factor": 1.1, "every": 1}),
        (Exponential, {"factor": 0.5, "every": 0}),
    ],
)
def test_impossible_settings_are_refused(schedule: type, options: dict) -> None:
    with pytest.raises(UserError, match="|".join(f"{key}={value}" for key, value in options.items())):
        schedule(**options)


def test_linear_by_hand() -> None:
    """Reptile's meta step goes down to nothing."""
    meta_step = Linear()
    assert [meta_step(1.0, step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert Linear(start=0.2, end=0.6)(1.0, 30, 40) == pytest.approx(0.5)
    assert Linear()(1.0, 0, 0) == 1.0


def test_linear_arrives_after_its_own_steps_however_long_the_run() -> None:
    schedule = Linear(steps=4)
    assert [schedule(1.0, step, 100) for step in (0, 1, 2, 3, 4, 5, 99)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]
    assert schedule(1.0, 1, 2) == 0.75  # also a shorter one


@pytest.mark.parametrize("base", [0.9, 0.7, 0.5, 0.3])
def test_momentum_begins_alike_and_ends_at_each_layers_own(base: float) -> None:
    """Koch et al. 2015, 3.2: 0.5 in every layer, rising linearly; here over 100 of 200 epochs."""
    momentum = LinearFrom(start=0.5, steps=100)
    by_hand = {0: 0.5, 1: 0.5 + (base - 0.5) / 100, 50: (0.5 + base) / 2, 100: base, 150: base, 199: base}
    for step, expected in by_hand.items():
        assert momentum(base, step, 200) == pytest.approx(expected, rel=1e-12)


def test_a_schedule_of_factors_is_in_proportion_to_the_base_value() -> None:
    for schedule in (Constant(), Cosine(warmup=10, floor=0.1), Exponential(factor=0.99, every=3), Linear(end=0.2)):
        for step in (0, 5, 30, 99):
            assert schedule(0.003, step, 100) == pytest.approx(0.003 * schedule(1.0, step, 100), rel=1e-12)


@pytest.mark.parametrize("options", [{"start": -0.1, "steps": 5}, {"start": 0.5, "steps": 0}])
def test_impossible_rises_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=f"start={options['start']}, steps={options['steps']}: give"):
        LinearFrom(**options)


@pytest.mark.parametrize("options", [{"start": -0.1}, {"end": -1.0}, {"steps": 0}])
def test_impossible_lines_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match="|".join(f"{key}={value}" for key, value in options.items())):
        Linear(**options)


# In the training loop


def test_every_group_of_parameters_follows_its_own_base_rate(make_experiment, recorder, make_method) -> None:
    method = make_method()
    optimizer = torch.optim.SGD(
        [
            {"params": method.backbone.parameters(), "lr": 0.1, "initial_lr": 0.1},
            {"params": [method.log_scale], "lr": 0.02, "initial_lr": 0.02},
        ]
    )
    experiment = make_experiment(method=method, optimizer=optimizer, schedules={"lr": Cosine()}, max_steps=3)
    fit(experiment, lambda: {"accuracy": 0.5}, recorder, recorder, StopRequest())
    # the last step is number 2 of 3: (1 + cos 120 degrees) / 2 = 1/4
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.005])


def test_trap_15_each_schedule_begins_at_the_base_value_of_its_own_option(
    make_experiment, recorder, make_method
) -> None:
    """A momentum that were scheduled from its latest value would compound."""
    method = make_method()
    groups = [
        {"params": parameters, "lr": lr, "initial_lr": lr, "momentum": momentum, "initial_momentum": momentum}
        for parameters, lr, momentum in ((method.backbone.parameters(), 0.1, 0.9), ([method.log_scale], 0.02, 0.7))
    ]
    schedules = {"lr": Exponential(factor=0.5, every=1), "momentum": LinearFrom(start=0.5, steps=10)}
    optimizer = torch.optim.SGD(groups)
    experiment = make_experiment(method=method, optimizer=optimizer, schedules=schedules, max_steps=6)
    fit(experiment, lambda: {"accuracy": 0.5}, recorder, recorder, StopRequest())
    # the last step is number 5: halfway from 0.5 to each group's own
    assert [group["momentum"] for group in optimizer.param_groups] == pytest.approx([0.7, 0.6])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 / 32, 0.02 / 32])
