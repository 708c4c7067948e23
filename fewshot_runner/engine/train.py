"""A run from its first step to its summary: train, take the best state from disk, test it, write down the results."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fewshot_runner import atomic
from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import fit
from fewshot_runner.engine.log import Narrator, TrainingLog
from fewshot_runner.engine.protocols import Protocol
from fewshot_runner.engine.stopping import Stopped, StopRequest
from fewshot_runner.engine.tensorboard import TensorBoard
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import Method
from fewshot_runner.runs import DONE, FAILED, RUNNING, STOPPED, RunFolder


def train(
    experiment: Experiment, run: RunFolder, narrator: Narrator, stop: StopRequest, *, settings: dict[str, Any]
) -> None:
    """Starts or resumes `run` and leaves its results there; `settings` are shown as hyperparameters in TensorBoard.

    Whatever ends it early is written to the run's status and raised again.
    """
    clock = Clock(run)
    try:
        _train(experiment, run, narrator, stop, clock, settings)
    except (Stopped, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        run.write_status(STOPPED, step=experiment.progress.step, seconds=clock.seconds, reason=reason)
        raise
    except UserError:  # a run that cannot go on as things stand is as it was
        raise
    except Exception as error:
        run.write_status(FAILED, step=experiment.progress.step, seconds=clock.seconds, reason=str(error))
        raise
    run.write_status(DONE, step=experiment.progress.step, seconds=clock.seconds)


def _train(
    experiment: Experiment,
    run: RunFolder,
    narrator: Narrator,
    stop: StopRequest,
    clock: "Clock",
    settings: dict[str, Any],
) -> None:
    method, hardware, progress = experiment.method, experiment.hardware, experiment.progress
    checkpoints = Checkpoints(run.checkpoints)
    state, damaged = checkpoints.load_step(hardware.device)
    for line in damaged:
        narrator.say(f"passed over: {line}")
    if state is not None:
        experiment.load_state_dict(state)
        progress = experiment.progress
        narrator.say(f"going on from step {progress.step}")

    def validate() -> dict[str, float]:
        run.write_status(RUNNING, step=experiment.progress.step, seconds=clock.seconds)
        return {"accuracy": evaluate(method, experiment.validation, hardware=hardware).accuracy}

    run.write_status(RUNNING, step=progress.step, seconds=clock.seconds)
    board = TensorBoard(run, resumed_after=progress.step if run.tensorboard.exists() else None)
    with TrainingLog(run, narrator, board, start=progress.step, max_steps=experiment.trainer.max_steps) as log:
        board.hyperparameters(settings)
        fit(experiment, validate, checkpoints, log, stop)
        best, damaged = checkpoints.load_best(hardware.device)
        for line in damaged:
            narrator.say(f"passed over: {line}; testing the state of step {best['step']} instead")
        experiment.check_stamp(best)
        method.load_state_dict(best["method"])
        tests = experiment.tests()
        results = [
            test(
                method, name, protocol, run,
                hardware=hardware, stamp=experiment.stamp, step=best["step"], between=stop.check,
            )
            for name, protocol in tests.items()
        ]  # fmt: skip
        board.examples(method, next(iter(tests.values())), hardware, step=best["step"])
        board.finish(results, step=best["step"])
    run.write_summary(
        {
            "best_step": best["step"],
            "best_validation": experiment.stopping.best,
            "steps": experiment.progress.step,
            "seconds": round(clock.seconds, 1),
            "images_per_second": median_speed(run),
            "parameters": sum(parameter.numel() for parameter in method.parameters()),
            "results": results,
        }
    )


def test(
    method: Method,
    name: str,
    protocol: Protocol,
    run: RunFolder,
    *,
    hardware: Hardware,
    stamp: dict[str, Any],
    step: int,
    between: Callable[[], None],
) -> dict[str, Any]:
    """Evaluates the weights of `step`, keeps the accuracy of every task in the run folder, and returns what the
    summary says of it.
    """
    evaluation = evaluate(method, protocol, hardware=hardware, between=between)
    kind = hashlib.sha256(json.dumps({**stamp, **evaluation.protocol}, sort_keys=True).encode()).hexdigest()[:8]
    tasks = run.tasks / f"{stamp['dataset']}-{stamp['split']}-{name}-{kind}.npy"  # one a kind of task, as results are
    atomic.write_array(tasks, evaluation.accuracies.astype(np.float32))
    return {
        "name": name,
        **stamp,
        **evaluation.protocol,
        "step": step,
        "mode": "inductive",
        "accuracy": evaluation.accuracy,
        "ci95": evaluation.ci95,
        "tasks": f"{run.tasks.name}/{tasks.name}",
    }


def median_speed(run: RunFolder) -> float | None:
    """Images per second over the logged steps."""
    speeds = [line["wall"]["images_per_second"] for line in run.read_metrics() if "images_per_second" in line["wall"]]
    return float(np.median(speeds)) if speeds else None


class Clock:
    """Seconds that a run has taken, over all its resumptions."""

    def __init__(self, run: RunFolder) -> None:
        self.before = run.read_status().get("seconds", 0.0) if run.status.is_file() else 0.0
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.began
