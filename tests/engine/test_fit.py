"""The training loop: what happens when, at which rate, and what is kept."""

import math
import time
from pathlib import Path

import pytest
import torch
from same_bits import assert_same_bits
from torch import Tensor, nn

from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import NotFinite, fit
from fewshot_runner.engine.schedule import Cosine, Exponential
from fewshot_runner.engine.stopping import EarlyStopping, Stopped, StopRequest
from fewshot_runner.methods.base import Method
from fewshot_runner.methods.prototypical import Prototypical


class Item:
    n_images = 3


class Items:
    """Training items that do nothing but be asked for."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def __getitem__(self, k: int) -> Item:
        self.events.append(f"item {k}")
        return Item()


class Scripted(Method):
    """One weight; the loss of step k is `losses[k]` plus a little of the weight, so that there is a gradient."""

    def __init__(self, losses: list[float], events: list[str] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.losses = iter(losses)
        self.events = events if events is not None else []

    def loss(self, batch: Item) -> Tensor:
        assert self.training
        self.events.append("backward")
        return next(self.losses) + 0.001 * self.weight.sum()

    def classify(self, episode: object) -> Tensor:
        raise NotImplementedError


class Poisoned(Scripted):
    """A loss that is not finite spoils the gradient as well."""

    def loss(self, batch: Item) -> Tensor:
        return super().loss(batch) * self.weight.sum()


class WatchedSgd(torch.optim.SGD):
    """Writes down when it is called, and with which rate."""

    def __init__(self, method: nn.Module, events: list[str], *, lr: float = 0.5) -> None:
        super().__init__(method.parameters(), lr=lr)
        self.param_groups[0]["initial_lr"] = lr
        self.events = events
        self.rates: list[float] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.events.append("zero_grad")
        super().zero_grad(set_to_none)

    def step(self) -> None:
        self.events.append("step")
        self.rates.append(self.param_groups[0]["lr"])
        super().step()


@pytest.fixture
def scripted(make_experiment, recorder):
    """An experiment of scripted losses and validation figures; runs it and returns it."""

    def run(
        losses: list[float],
        figures: list[float],
        *,
        kind: type[Scripted] = Scripted,
        checkpoints: object = recorder,
        rate: float = 0.5,
        **changes,
    ) -> Experiment:
        events = recorder.events
        method = kind(losses, events)
        experiment = make_experiment(
            method=method, optimizer=WatchedSgd(method, events, lr=rate), items=Items(events), **changes
        )
        remaining = iter(figures)

        def validate() -> dict[str, float]:
            events.append("validate")
            return {"accuracy": next(remaining)}

        fit(experiment, validate, checkpoints, recorder, StopRequest())
        return experiment

    return run


def test_events_come_in_order(scripted, recorder) -> None:
    scripted([1.0] * 4, [0.5, 0.6], max_steps=4, log_every=2, val_every=3, checkpoint_every=2)
    a_step = ["zero_grad", "backward", "step"]
    assert recorder.events == [
        "item 0", *a_step,
        "item 1", *a_step, "log 2", "flush", "save step 2",
        "item 2", *a_step, "validate", "log validation 3", "save best 3",
        "item 3", *a_step, "log 4", "validate", "log validation 4", "save best 4", "flush", "save step 4",
        "flush", "save step 4",
    ]  # fmt: skip


def test_speed_is_that_of_training_alone(scripted, recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a step takes a second of, and a checkpoint or a validation a hundred."""
    lasts = {"backward": 1, "validate": 100, "flush": 100}
    monkeypatch.setattr(time, "perf_counter", lambda: sum(lasts.get(event, 0) for event in recorder.events))
    scripted([1.0] * 6, [0.5] * 3, max_steps=6, log_every=2, val_every=2, checkpoint_every=1)
    assert recorder.speeds == [Item.n_images] * 3


@pytest.mark.parametrize(
    ("max_steps", "val_every", "at"), [(9, 4, [4, 8, 9]), (8, 4, [4, 8]), (3, 100, [3]), (3, 1, [1, 2, 3])]
)
def test_validation_comes_every_so_many_steps_and_at_the_end(
    scripted, recorder, max_steps: int, val_every: int, at: list[int]
) -> None:
    scripted([1.0] * max_steps, [0.5] * len(at), max_steps=max_steps, val_every=val_every)
    assert list(recorder.val) == at


def test_logged_figures_are_means_since_the_last(scripted, recorder) -> None:
    scripted([1.0, 2.0, 3.0, 5.0, 8.0], [0.5], rate=1e-9, max_steps=5, log_every=2, val_every=100)
    # the weight is 1 throughout, which adds 0.001
    assert {step: figures["loss"] for step, figures in recorder.train.items()} == pytest.approx(
        {2: 1.501, 4: 4.001, 5: 8.001}, rel=1e-6
    )


def test_trap_15_the_rate_is_the_closed_form_of_the_step(scripted, recorder) -> None:
    experiment = scripted(
        [1.0] * 60, [0.5], schedules={"lr": Exponential(factor=0.99, every=1)}, max_steps=60, val_every=100, log_every=1
    )
    rates = experiment.optimizer.rates
    assert rates[50] == pytest.approx(0.5 * 0.6050060671, rel=1e-9)
    assert rates == pytest.approx([0.5 * math.exp(k * math.log(0.99)) for k in range(60)])
    assert [figures["learning_rate"] for figures in recorder.train.values()] == rates


def test_it_stops_after_patience_validations_without_a_better_one(scripted, recorder) -> None:
    experiment = scripted(
        [1.0] * 100, [0.3, 0.6, 0.5, 0.6, 0.1, 0.9], max_steps=100, val_every=5, checkpoint_every=50, patience=3
    )
    assert experiment.progress.step == 25  # best at 10, then 15, 20 and 25
    assert list(recorder.val) == [5, 10, 15, 20, 25]
    assert [event for event in recorder.events if event.startswith("save")] == [
        "save best 5", "save best 10", "save step 25",
    ]  # fmt: skip


def test_trap_08_the_best_weights_are_those_of_the_best_step(make_experiment, tmp_path: Path, recorder) -> None:
    """Kept as they were, not as the live weights have become since."""
    experiment: Experiment = make_experiment(max_steps=4, val_every=1)
    weights: list[dict] = []
    figures = iter([0.3, 0.9, 0.5, 0.4])

    def validate() -> dict[str, float]:
        weights.append({name: value.clone() for name, value in experiment.method.state_dict().items()})
        return {"accuracy": next(figures)}

    checkpoints = Checkpoints(tmp_path)
    fit(experiment, validate, checkpoints, recorder, StopRequest())
    best, _ = checkpoints.load_best()
    last, _ = checkpoints.load_step()
    assert (best["step"], last["step"]) == (2, 4)
    for name, value in weights[1].items():
        assert torch.equal(best["method"][name], value)
    for name, value in weights[3].items():
        assert torch.equal(last["method"][name], value)
    assert not torch.equal(best["method"]["log_scale"], last["method"]["log_scale"])


def test_no_training_keeps_the_initial_state_as_best(scripted, recorder) -> None:
    experiment = scripted([], [], max_steps=0)
    assert recorder.events == ["flush", "save step 0", "save best 0"]
    assert experiment.progress.step == 0


def finite_everywhere(folder: Path) -> bool:
    files = list(folder.glob("*.pt"))
    states = [torch.load(path, weights_only=True) for path in files]
    values = [state["method"].values() for state in states] + [state.get("totals", {}).values() for state in states]
    return all(value.isfinite().all() for of_state in values for value in of_state)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("log_every", "val_every", "checkpoint_every"), [(1, 100, 100), (100, 1, 100), (100, 100, 1), (100, 100, 100)]
)
def test_a_loss_that_is_not_finite_ends_it_and_is_kept_nowhere(
    scripted, recorder, tmp_path: Path, wrong: float, log_every: int, val_every: int, checkpoint_every: int
) -> None:
    with pytest.raises(NotFinite, match=r"loss is (nan|inf) at step \d.*method\.optimizer\.lr.*clip_norm") as error:
        scripted(
            [1.0, 1.0, wrong, 1.0, 1.0, 1.0], [0.5] * 10, kind=Poisoned, rate=0.01, checkpoints=Checkpoints(tmp_path),
            max_steps=6, log_every=log_every, val_every=val_every, checkpoint_every=checkpoint_every,
        )  # fmt: skip
    assert error.value.exit_code == 4
    assert finite_everywhere(tmp_path)
    assert all(math.isfinite(value) for figures in recorder.train.values() for value in figures.values())


@pytest.mark.parametrize("every", [{"val_every": 3}, {"checkpoint_every": 3}, {}])
def test_a_gradient_that_is_not_finite_is_kept_nowhere_though_the_loss_was(
    make_experiment, recorder, tmp_path: Path, every: dict
) -> None:
    """The square root of 0 has a loss of 0 and no gradient, so the weights break one step before the loss does."""

    class Cliff(Scripted):
        def loss(self, batch: Item) -> Tensor:
            step = len(self.events)
            self.events.append("backward")
            return (self.weight * (step < 2)).sum().sqrt() if step == 2 else self.weight.sum()

    method = Cliff([])
    experiment = make_experiment(
        method=method, optimizer=WatchedSgd(method, [], lr=0.01), items=Items([]),
        **{"max_steps": 3, "val_every": 100, "checkpoint_every": 100, "log_every": 1} | every,
    )  # fmt: skip
    with pytest.raises(NotFinite, match=r"^weight is nan at step 3"):
        fit(experiment, lambda: {"accuracy": 0.5}, Checkpoints(tmp_path), recorder, StopRequest())
    assert not method.weight.isfinite().all()
    assert finite_everywhere(tmp_path)


def test_the_gradient_is_bounded_where_asked(make_experiment, recorder) -> None:
    norms = []
    for clip_norm in (None, 1e-3):
        method = Scripted([1.0])
        optimizer = WatchedSgd(method, [], lr=1.0)
        method.loss = lambda item, method=method: 100 * method.weight.sum()
        experiment = make_experiment(
            method=method, optimizer=optimizer, items=Items([]), max_steps=1, clip_norm=clip_norm
        )
        fit(experiment, lambda: {"accuracy": 0.5}, recorder, recorder, StopRequest())
        norms.append(float(1 - method.weight.detach()))
    assert norms == pytest.approx([100, 1e-3], rel=1e-3)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_stop_is_honoured_after_the_step_with_a_checkpoint(make_experiment, recorder, step: int) -> None:
    stop = StopRequest()
    experiment: Experiment = make_experiment(max_steps=6, val_every=2, checkpoint_every=4)
    items = experiment.items

    class Interrupting:
        def __getitem__(self, k: int) -> object:
            if k == step - 1:
                stop.signal_number = 15
            return items[k]

    experiment.items = Interrupting()
    with pytest.raises(Stopped):
        fit(experiment, lambda: {"accuracy": 0.5}, recorder, recorder, stop)
    assert experiment.progress.step == step
    assert recorder.events[-2:] == ["flush", f"save step {step}"]
    assert recorder.states[step]["step"] == step


class Dropping(Prototypical):
    """A method that draws random numbers of its own in training."""

    def embed(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().embed(images), 0.5, self.training)


def test_each_step_draws_random_numbers_of_its_own_which_the_seed_tells(scripted, recorder) -> None:
    def drawn(seed: int) -> list[float]:
        losses = (float(torch.rand(1)) for _ in range(5))  # drawn when the step asks, as dropout is
        scripted(losses, [0.5], rate=1e-9, seed=seed, max_steps=5, log_every=1, val_every=100)
        return [figures["loss"] for figures in recorder.train.values()]

    first, other, again = (drawn(seed) for seed in (0, 1, 0))
    assert len({*first, *other}) == 10
    assert again == first


@pytest.mark.parametrize("stop_at", [1, 3, 4, 5])
def test_trap_16_resuming_goes_on_with_the_same_bits(
    make_experiment, make_method, recorder, tmp_path: Path, stop_at: int
) -> None:
    """Dropout, a schedule, sums that were not logged yet, and early stopping: all go on where they stood."""

    def experiment() -> Experiment:
        plain = make_method()
        method = Dropping(plain.backbone, distance="euclidean")
        return make_experiment(
            method=method, schedules={"lr": Cosine(warmup=2)}, max_steps=9, log_every=4, val_every=2, patience=3,
            checkpoint_every=stop_at,
        )  # fmt: skip

    figures = {2: 0.4, 4: 0.6, 6: 0.5, 8: 0.55, 9: 0.1}

    def run(experiment: Experiment, log) -> Experiment:
        fit(experiment, lambda: {"accuracy": figures[experiment.progress.step]}, log, log, StopRequest())
        return experiment

    whole = run(experiment(), recorder)
    logged, validated = dict(recorder.train), dict(recorder.val)
    resumed = experiment()
    torch.manual_seed(12345)  # another process has another global state
    resumed.load_state_dict(recorder.states[stop_at])
    recorder.train.clear()
    recorder.val.clear()
    run(resumed, recorder)

    assert whole.progress.step == resumed.progress.step == 9
    assert recorder.train == {step: figures for step, figures in logged.items() if step > stop_at}
    assert recorder.val == {step: figures for step, figures in validated.items() if step > stop_at}
    assert_same_bits(resumed.state_dict(), whole.state_dict())


def test_a_step_never_waits_for_the_device(make_experiment, recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two log points nothing turns a tensor into a Python number."""
    experiment: Experiment = make_experiment(max_steps=6, log_every=6, val_every=6, checkpoint_every=6, clip_norm=1.0)
    experiment.optimizer = torch.optim.SGD(experiment.method.parameters(), lr=0.1)
    experiment.optimizer.param_groups[0]["initial_lr"] = 0.1
    asked: list[tuple[int, str]] = []

    for name in ("item", "__float__", "__bool__", "__int__", "__index__", "tolist", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)

        def watched(self, *arguments, name=name, original=original, **options):
            asked.append((experiment.progress.step, name))
            return original(self, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, watched)

    validate = lambda: {"accuracy": 0.5}  # noqa: E731
    fit(experiment, validate, recorder, recorder, StopRequest())
    assert asked, "the watch is not in place"
    assert {step for step, _ in asked} == {6}


def test_early_stopping_is_what_the_trainer_says(make_experiment) -> None:
    stopping: EarlyStopping = make_experiment(patience=4).stopping
    assert (stopping.patience, stopping.monitor) == (4, "accuracy")


@pytest.mark.parametrize(("precision", "mixed"), [("float32", False), ("bfloat16", True)])
def test_the_loss_is_computed_in_the_precision_of_the_hardware(
    make_experiment, recorder, precision: str, mixed: bool
) -> None:
    class Asking(Scripted):
        def loss(self, batch: Item) -> Tensor:
            found.append(torch.is_autocast_enabled("cpu"))
            return super().loss(batch)

    found: list[bool] = []
    method = Asking([1.0] * 3)
    hardware = Hardware(device="cpu", threads=1, precision=precision)
    experiment = make_experiment(method=method, items=Items([]), hardware=hardware, max_steps=3)
    fit(experiment, lambda: {"accuracy": 0.5}, recorder, recorder, StopRequest())
    assert found == [mixed] * 3
