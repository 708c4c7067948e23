"""The contract of a launcher."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from fewshot_runner.cli.sweeps.job import Job, Outcome
from fewshot_runner.runs import FAILED, STOPPED

SECONDS_TO_SAVE = 60.0  # that a job which is stopped has for its checkpoint


class Launcher(ABC):
    """Runs jobs; closing the iterator before its end stops those that run and leaves no process behind."""

    elsewhere = False  # whether on machines that may have devices which this one has not

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Called once it is known that there is something to run, and before all of it is."""

    @abstractmethod
    def run(self, jobs: Iterator[Job], folder: Path) -> Iterator[tuple[Job, Outcome]]:
        """Takes the next of `jobs` whenever there is room for it, and yields each with its outcome when it ends.

        A job's outcome has been dealt with before the next is taken. `folder` is the sweep's.
        """


def seen_from_here(outcome: Outcome) -> Outcome:
    """The outcome of a job in a process of its own: who stops that alone does not stop the sweep."""
    return Outcome(FAILED, outcome.run, outcome.reason) if outcome.state == STOPPED else outcome
