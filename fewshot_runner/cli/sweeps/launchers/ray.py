"""Jobs on a Ray cluster (https://docs.ray.io)."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot_runner.cli.sweeps.job import Job, Outcome, perform
from fewshot_runner.cli.sweeps.launchers.base import SECONDS_TO_SAVE, Launcher, seen_from_here
from fewshot_runner.errors import UserError
from fewshot_runner.extras import imported
from fewshot_runner.runs import FAILED


class Ray(Launcher):
    """At most `jobs` are submitted at a time, each asking for `num_cpus` and `num_gpus`, and with a thread a CPU.

    Threads that a job's own config gives stand. `init` goes to `ray.init`: an address, or nothing for a cluster of this
    machine that lasts as long as the sweep. The output folder has to lie where all nodes see it, under the same name.
    """

    elsewhere = True

    def __init__(self, *, jobs: int, num_cpus: float, num_gpus: float, init: Mapping[str, Any]) -> None:
        if jobs < 1:
            raise UserError(f"launcher.jobs={jobs}: give 1 or more")
        for key, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
            if value < 0:
                raise UserError(f"launcher.{key}={value}: give 0 or more")
        self.jobs = jobs
        self.threads = max(1, int(num_cpus))
        self.resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.init = dict(init)
        self.ray = imported("ray", extra="ray", asked_by="launcher=ray")

    def run(self, jobs: Iterator[Job], folder: Path) -> Iterator[tuple[Job, Outcome]]:
        ray = self.ray
        running: dict[Any, Job] = {}
        try:
            self._connect()
            task = ray.remote(**self.resources, max_retries=0)(_perform)
            while True:
                while len(running) < self.jobs and (job := next(jobs, None)) is not None:
                    running[task.remote(job.with_threads(self.threads), Path.cwd())] = job
                if not running:
                    return
                for reference in ray.wait(list(running))[0]:
                    yield running.pop(reference), self._outcome(reference)
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:  # those at work save their runs
                ray.wait(list(running), num_returns=len(running), timeout=SECONDS_TO_SAVE)
            ray.shutdown()

    def _connect(self) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(**self.init)
        except (ConnectionError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"launcher.init={self.init}: {error}") from error
        finally:
            signal.signal(signal.SIGTERM, handler)  # Ray sets one of its own, which ends the process at once

    def _outcome(self, reference: Any) -> Outcome:
        try:
            return seen_from_here(self.ray.get(reference))
        except Exception as error:  # Ray's own, of a worker that died
            return Outcome(FAILED, reason=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _perform(job: Job, folder: Path) -> Outcome:
    os.chdir(folder)  # which relative paths begin at
    return perform(job, quiet=True)
