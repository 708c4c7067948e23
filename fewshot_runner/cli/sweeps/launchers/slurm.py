"""Jobs on a Slurm cluster, through submitit (https://github.com/facebookincubator/submitit)."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fewshot_runner.cli.signals import handled
from fewshot_runner.cli.sweeps.job import Job, Outcome, perform
from fewshot_runner.cli.sweeps.launchers.base import Launcher, seen_from_here
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.errors import UserError
from fewshot_runner.extras import imported
from fewshot_runner.runs import FAILED, STOPPED


class Slurm(Launcher):
    """`cluster`: slurm, or local to try it out in processes of this machine; at most `jobs` are submitted at a time.

    `parameters` are submitit's (timeout_min, cpus_per_task, slurm_partition ...). A job that runs out of time is queued
    again `requeues` times, a preempted one always; either is saved first and goes on from there. All nodes have to see
    the output folder.

    Nothing else that fsl reads from a file is unpickled: submitit hands a job to its node and the outcome back as
    pickles below the sweep's folder, where nobody else may be let to write.
    """

    elsewhere = True

    def __init__(
        self, *, cluster: str, jobs: int, requeues: int, poll_seconds: float, parameters: Mapping[str, Any]
    ) -> None:
        if cluster not in ("slurm", "local"):
            raise UserError(f"launcher.cluster={cluster}: choose slurm or local")
        if jobs < 1:
            raise UserError(f"launcher.jobs={jobs}: give 1 or more")
        self.cluster = cluster
        self.jobs = jobs
        self.requeues = requeues
        self.poll_seconds = poll_seconds
        self.parameters = dict(parameters)
        self.submitit = imported("submitit", extra="slurm", asked_by="launcher=slurm")

    def run(self, jobs: Iterator[Job], folder: Path) -> Iterator[tuple[Job, Outcome]]:
        executor = self._executor(folder / "slurm")
        running: list[tuple[Job, Any]] = []
        try:
            while True:
                while len(running) < self.jobs and (job := next(jobs, None)) is not None:
                    running.append((job, executor.submit(Task(job))))
                if not running:
                    return
                ended = [entry for entry in running if entry[1].done()]
                if not ended:
                    time.sleep(self.poll_seconds)
                for entry in ended:
                    running.remove(entry)
                    yield entry[0], self._outcome(entry[1])
        finally:
            for _, submitted in running:
                submitted.cancel()

    def _executor(self, folder: Path) -> Any:
        try:
            executor = self.submitit.AutoExecutor(
                folder=folder.absolute(), cluster=self.cluster, slurm_max_num_timeout=self.requeues
            )
            executor.update_parameters(**self.parameters)
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise UserError(
                f"launcher.cluster={self.cluster}, launcher.parameters={self.parameters}: {error}"
            ) from error
        return executor

    def _outcome(self, submitted: Any) -> Outcome:
        try:
            return seen_from_here(submitted.result())
        except Exception as error:  # submitit's own, of a job that timed out, was cancelled or never came back
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            return Outcome(FAILED, reason=f"Slurm job {submitted.job_id}: {reason}")


@contextmanager
def saved_first() -> Iterator[Callable[[], None]]:
    """Stops the run as SIGTERM would where submitit's signal comes, which leaves minutes; yields what queues it again.

    That does nothing where no such signal has come, and else ends this process. Where no run is under way that could be
    stopped, submitit has its turn at once.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    of_submitit = {n: h for n, h in handlers.items() if getattr(h, "__name__", "") == "checkpoint_and_try_requeue"}
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), StopRequest):
            came.append(number)
            signal.raise_signal(signal.SIGTERM)
        else:
            of_submitit[number](number, frame)

    def queue_again() -> None:
        for number in came:
            of_submitit[number](number, None)

    with handled(of_submitit, stop):
        yield queue_again


class Task:
    """What a node does. Where submitit says that the time is up, the run is saved, and the same is queued again and
    goes on from there.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> Outcome:
        with saved_first() as queue_again:
            outcome = perform(self.job, quiet=False)
            if outcome.state == STOPPED:
                queue_again()
            return outcome

    def checkpoint(self) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self)
