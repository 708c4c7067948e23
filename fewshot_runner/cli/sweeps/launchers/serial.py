"""One job after the other in this process, which imports everything once."""

import sys
from collections.abc import Iterator
from pathlib import Path

from fewshot_runner.cli.sweeps.job import Job, Outcome, perform
from fewshot_runner.cli.sweeps.launchers.base import Launcher


class Serial(Launcher):
    """On a terminal, each job shows its progress."""

    def run(self, jobs: Iterator[Job], folder: Path) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            yield job, perform(job, quiet=not sys.stderr.isatty())
