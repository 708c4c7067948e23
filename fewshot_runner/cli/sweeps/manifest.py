"""The manifest of a sweep: every job with its settings, state, run folder and result, in one file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_runner import atomic
from fewshot_runner.cli.sweeps.job import Outcome
from fewshot_runner.errors import UserError
from fewshot_runner.report.records import is_number
from fewshot_runner.runs import DONE, LONG_FIGURES, PRUNED, RunFolder

PENDING = "pending"
FORMAT = 1

Entry = dict[str, Any]


class Manifest:
    """`manifest.json` in a sweep's folder; whole whenever it is read, since every change replaces it."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.path = folder / "manifest.json"
        self.command = list(command)
        self.jobs: list[Entry] = []

    def note(self, entry: Entry, outcome: Outcome) -> None:
        """How far a job is, with the results of its run; paths are relative to the sweep's folder."""
        for key in ("run", "reason", "result", "monitor", "validation", "seconds"):
            entry.pop(key, None)
        entry["state"] = outcome.state
        if outcome.reason is not None:
            entry["reason"] = outcome.reason
        if outcome.run is not None:
            entry["run"] = Path(os.path.relpath(outcome.run, self.folder)).as_posix()
            if outcome.state in (DONE, PRUNED):
                entry |= results_of(RunFolder(outcome.run))

    def save(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self.path, {"format": FORMAT, "command": self.command, "jobs": self.jobs})
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot write the sweep's manifest there ({error.strerror}); "
                "make room; the same command goes on with what is missing"
            ) from error


def entry_of(number: int, overrides: Sequence[str], fingerprint: str | None) -> Entry:
    """A job that waits for its turn."""
    return {"number": number, "overrides": list(overrides), "fingerprint": fingerprint, "state": PENDING}


def results_of(run: RunFolder) -> Entry:
    """What the manifest tells of a run that has ended: its own test's result, best validation figure, what it took."""
    summary = run.read_summary()
    figures = {"validation": summary.get("best_validation"), "seconds": summary.get("seconds")}
    content: Entry = {"monitor": run.read_config()["trainer"]["monitor"]}
    content |= {key: value if is_number(value) else None for key, value in figures.items()}  # None: damaged
    if summary["results"]:
        told = {key: value for key, value in summary["results"][0].items() if key not in LONG_FIGURES}
        content["result"] = {"ci95": None} | told
    return content
