"""Jobs on a Ray cluster (https://docs.ray.io)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot_runner.cli.extras import imported
from fewshot_runner.cli.job import Job, Outcome, perform
from fewshot_runner.cli.launchers.base import Launcher
from fewshot_runner.errors import UserError
from fewshot_runner.runs import FAILED, STOPPED


class Ray(Launcher):
    """At most `jobs` are submitted at a time, each asking for `num_cpus` and `num_gpus`.

    `init` goes to `ray.init`: an address, or nothing for a cluster of this machine that lasts as long as the sweep. The
    output folder has to lie where all nodes see it.
    """

    def __init__(self, *, jobs: int, num_cpus: float, num_gpus: float, init: Mapping[str, Any]) -> None:
        if jobs < 1:
            raise UserError(f"launcher.jobs={jobs}: give 1 or more")
        self.jobs = jobs
        self.resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.init = dict(init)
        self.ray = imported("ray", extra="ray", asked_by="launcher=ray")

    def run(self, jobs: Iterator[Job], folder: Path) -> Iterator[tuple[Job, Outcome]]:
        ray = self.ray
        running: dict[Any, Job] = {}
        ray.init(**self.init)
        try:
            task = ray.remote(**self.resources, max_retries=0)(_perform)
            while True:
                while len(running) < self.jobs and (job := next(jobs, None)) is not None:
                    running[task.remote(job)] = job
                if not running:
                    return
                for reference in ray.wait(list(running))[0]:
                    yield running.pop(reference), self._outcome(reference)
        finally:
            for reference in running:
                ray.cancel(reference)
            ray.shutdown()

    def _outcome(self, reference: Any) -> Outcome:
        try:
            outcome = self.ray.get(reference)
        except Exception as error:  # Ray's own, of a worker that died
            return Outcome(FAILED, reason=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
        if outcome.state == STOPPED:  # on its node alone: the sweep goes on
            return Outcome(FAILED, outcome.run, outcome.reason)
        return outcome


def _perform(job: Job) -> Outcome:
    return perform(job, quiet=True)
