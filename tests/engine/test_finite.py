"""What is infinite or not a number besides the loss ends training as the loss does: see test_fit.py."""

import math
from pathlib import Path

import pytest

from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import NotFinite, fit
from fewshot_runner.engine.stopping import StopRequest


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [1, 3])
def test_a_validation_figure_that_is_not_finite_ends_it(make_experiment, recorder, wrong: float, at: int) -> None:
    """Nothing beats a NaN that came first, so the worst weights would stay the best."""
    experiment: Experiment = make_experiment(max_steps=8, val_every=2, checkpoint_every=100)
    figures = iter([0.5] * (at - 1) + [wrong, 0.9, 0.9, 0.9])
    with pytest.raises(NotFinite, match=rf"validation accuracy is {wrong} at step {2 * at}: ") as error:
        fit(experiment, lambda: {"accuracy": next(figures)}, recorder, recorder, StopRequest())
    assert error.value.exit_code == 4
    assert list(recorder.val) == [2 * k for k in range(1, at)]
    assert [event for event in recorder.events if event.startswith("save")] == ["save best 2"] * (at > 1)


@pytest.mark.parametrize("every", [{"val_every": 3}, {"checkpoint_every": 3}, {}])
def test_a_running_statistic_that_is_not_finite_is_kept_nowhere(
    make_experiment, recorder, tmp_path: Path, every: dict
) -> None:
    """Training normalises by the batch's own statistics, so neither the loss nor a weight tells."""
    experiment: Experiment = make_experiment(
        **{"max_steps": 3, "val_every": 100, "checkpoint_every": 100, "log_every": 1} | every
    )
    name, statistic = next(entry for entry in experiment.method.named_buffers() if entry[0].endswith("running_var"))
    items = experiment.items

    class Overflowing:
        def __getitem__(self, k: int) -> object:
            if k == 2:
                statistic[1] = math.inf
            return items[k]

    experiment.items = Overflowing()
    with pytest.raises(NotFinite, match=rf"{name} is inf at step 3"):
        fit(experiment, lambda: {"accuracy": 0.5}, Checkpoints(tmp_path), recorder, StopRequest())
    assert all(math.isfinite(figures["loss"]) for figures in recorder.train.values())
    assert all(parameter.isfinite().all() for parameter in experiment.method.parameters())
    assert list(tmp_path.rglob("*.pt")) == []
