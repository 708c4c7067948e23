"""The training loop, the same for every method: it reads from top to bottom in the order of events."""

import math
import time
from collections.abc import Callable

from torch.nn.utils import clip_grad_norm_

from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.log import TrainingLog
from fewshot_runner.engine.stopping import Pruned, StopRequest, Watch, merit
from fewshot_runner.errors import RunFailed
from fewshot_runner.randomness import torch_seed


class NotFinite(RunFailed):
    """A loss, a tensor of the method's or a validation figure is infinite or not a number.

    No checkpoint holds what came of it.
    """

    exit_code = 4


def fit(
    experiment: Experiment,
    validate: Callable[[], dict[str, float]],
    checkpoints: Checkpoints,
    log: TrainingLog,
    stop: StopRequest,
    watch: Watch | None = None,
) -> None:
    """Trains from where `experiment.progress` stands to the last step, or until validation stops improving.

    Afterwards the final state and the best one lie in `checkpoints`. Raises `Stopped` after a signal and `Pruned` where
    `watch` gives the run up, both with a checkpoint written, and `NotFinite`.
    """
    method, optimizer, progress = experiment.method, experiment.optimizer, experiment.progress
    trainer, stopping, hardware = experiment.trainer, experiment.stopping, experiment.hardware

    def check_sound() -> None:
        check_finite({name: float(total) for name, total in progress.totals.items()}, progress.step)
        for name, value in method.state_dict().items():  # batch norm's statistics may overflow before a weight does
            if not value.isfinite().all():
                check_finite({name: float(value[~value.isfinite()][0])}, progress.step)

    def keep_state() -> None:
        check_sound()
        log.flush()
        checkpoints.save_step(progress.step, experiment.state_dict())

    method.train()
    began, n_images = time.perf_counter(), 0
    while progress.step < trainer.max_steps and not stopping.exhausted:
        for option, schedule in experiment.schedules.items():
            for group in optimizer.param_groups:
                group[option] = schedule(group[f"initial_{option}"], progress.step, trainer.max_steps)
        hardware.seed(torch_seed(experiment.seed, "step", progress.step))  # dropout, as a function of the step
        item = experiment.items[progress.step]

        optimizer.zero_grad()
        with hardware.autocast():
            figures = method.backward(item)
        if trainer.clip_norm is not None:
            clip_grad_norm_(method.parameters(), trainer.clip_norm)
        optimizer.step()

        progress.step += 1
        progress.add(figures)
        n_images += item.n_images
        last = progress.step == trainer.max_steps

        if progress.step % trainer.log_every == 0 or last:
            means = check_finite(progress.take_means(), progress.step)
            speed = n_images / (time.perf_counter() - began)
            log.step(progress.step, means, rate=optimizer.param_groups[0]["lr"], images_per_second=speed)
            began, n_images = time.perf_counter(), 0

        paused = time.perf_counter()
        if progress.step % trainer.val_every == 0 or last:
            check_sound()
            val_figures = validate()
            check_finite({f"validation {name}": value for name, value in val_figures.items()}, progress.step)
            log.validation(progress.step, val_figures)
            if stopping.improves(val_figures, progress.step):
                checkpoints.save_best(experiment.best_state())
            latest = merit(val_figures[stopping.monitor], stopping.monitor)
            given_up = watch is not None and watch(progress.step, latest)
            if given_up and not (last or stopping.exhausted or stop.requested):
                keep_state()
                raise Pruned(progress.step, stopping)

        stopped = stop.requested  # asked once: no signal ends the run before its state is kept
        if progress.step % trainer.checkpoint_every == 0 or stopped:
            keep_state()
        if stopped:
            stop.check()
        began += time.perf_counter() - paused

    keep_state()
    if stopping.best is None:  # nothing was trained, so the initial state is the best
        checkpoints.save_best(experiment.best_state())


def check_finite(figures: dict[str, float], step: int) -> dict[str, float]:
    wrong = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise NotFinite(
            f"{', '.join(wrong)} at step {step}: lower the learning rate (method.optimizer.lr), "
            "or bound the gradient with trainer.clip_norm=1"
        )
    return figures
