"""A run from its first step to its summary: train, take the best state from disk, test it, write down the results."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import fit
from fewshot_runner.engine.log import Narrator, TrainingLog
from fewshot_runner.engine.results import beside, keep_result
from fewshot_runner.engine.stopping import Pruned, Stopped, StopRequest, Watch
from fewshot_runner.engine.tensorboard import TensorBoard
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.runs import DONE, FAILED, PRUNED, RUNNING, STOPPED, RunFolder


def train(
    experiment: Experiment,
    run: RunFolder,
    narrator: Narrator,
    stop: StopRequest,
    *,
    settings: dict[str, Any],
    watch: Watch | None = None,
) -> None:
    """Starts or resumes `run` and leaves its results there; `settings` are shown as hyperparameters in TensorBoard.

    `watch` may give the run up after a validation. Whatever ends it early is raised.
    """
    clock = Clock(run)
    with ending_noted(experiment, run, clock):
        method, hardware, progress = experiment.method, experiment.hardware, experiment.progress
        checkpoints = Checkpoints(run.checkpoints)
        state, damaged = checkpoints.load_step()  # on the CPU; loading copies each tensor to its device
        for line in damaged:
            narrator.say(f"passed over: {line}")
        if state is not None:
            experiment.load_state_dict(state)
            progress = experiment.progress
            narrator.say(f"going on from step {progress.step}")

        def validate() -> dict[str, float]:
            run.write_status(RUNNING, step=experiment.progress.step, seconds=clock.seconds)
            return evaluate(method, experiment.validation, hardware=hardware).means()

        board = TensorBoard(run, resumed_after=progress.step if run.tensorboard.exists() else None)
        with TrainingLog(run, narrator, board, start=progress.step, max_steps=experiment.trainer.max_steps) as log:
            run.write_status(RUNNING, step=progress.step, seconds=clock.seconds)
            board.hyperparameters(settings)
            fit(experiment, validate, checkpoints, log, stop, watch)
            best, damaged = checkpoints.load_best(hardware.device)
            for line in damaged:
                narrator.say(f"passed over: {line}; testing the state of step {best['step']} instead")
            experiment.check_provenance(best)
            method.load_state_dict(best["method"])
            tests = experiment.tests()
            own, data, asked = [], experiment.provenance.entries(), asked_before(run, best["step"])
            board.begin_tests()
            for name, protocol in tests.items():
                log.testing(name)
                evaluation = evaluate(method, protocol, hardware=hardware, between=stop.check)
                own.append(keep_result(evaluation, name, run, data=data, step=best["step"]))
                results = beside(own, asked)  # written at once, whatever becomes of the next test
                write_summary(experiment, run, clock, best_step=best["step"], results=results)
                board.confusion(name, evaluation, experiment.classes, step=best["step"])
            board.examples(method, tests.values(), hardware, step=best["step"])
            board.finish(own, step=best["step"])


@contextmanager
def ending_noted(experiment: Experiment, run: RunFolder, clock: "Clock") -> Iterator[None]:
    """Writes how a run ends to its status, whether it is done or was ended early, which is raised again."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        run.write_status(STOPPED, step=experiment.progress.step, seconds=clock.seconds, reason=reason)
        raise
    except Pruned as error:
        best_step = experiment.stopping.best_step
        write_summary(experiment, run, clock, best_step=best_step, results=asked_before(run, best_step))
        run.write_status(PRUNED, step=experiment.progress.step, seconds=clock.seconds, reason=str(error))
        raise
    except UserError as error:  # a run that cannot go on as things stand is as it was
        status = run.read_status()
        if status["state"] == RUNNING:
            step = max(experiment.progress.step, status["step"])
            run.write_status(STOPPED, step=step, seconds=clock.seconds, reason=str(error))
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
        run.write_status(FAILED, step=experiment.progress.step, seconds=clock.seconds, reason=reason)
        raise
    run.write_status(DONE, step=experiment.progress.step, seconds=clock.seconds)


def asked_before(run: RunFolder, best_step: int) -> list[dict[str, Any]]:
    """What was asked of a run that had been stopped or given up, at what is its best step still."""
    return [result for result in run.read_summary()["results"] if result["step"] == best_step]


def write_summary(
    experiment: Experiment, run: RunFolder, clock: "Clock", *, best_step: int, results: list[dict[str, Any]]
) -> None:
    stopping = experiment.stopping
    run.write_summary(
        {
            "best_step": best_step,  # not that of the best validation where its checkpoint is damaged
            "best_validation": stopping.best if best_step == stopping.best_step else None,
            "steps": experiment.progress.step,
            "seconds": round(clock.seconds, 1),
            "images_per_second": median_speed(run),
            "parameters": sum(parameter.numel() for parameter in experiment.method.parameters()),
            "results": results,
        }
    )


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
