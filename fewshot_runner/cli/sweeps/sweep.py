"""The jobs of fsl train -m, which can be stopped, killed and issued again.

A job is known by the hash of its resolved config, and a run below `output_dir` with these very settings is its run,
whoever started it: taken as it is where it is done, resumed where it was interrupted. One that the search gave up stays
so as long as the search has not changed its mind.
"""

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_runner.cli.signals import signals_raised
from fewshot_runner.cli.sweeps.job import Job, Outcome, falls_behind, find_run, remove_lock
from fewshot_runner.cli.sweeps.manifest import PENDING, Entry
from fewshot_runner.cli.sweeps.planning import Planner, outcome_of
from fewshot_runner.cli.sweeps.search.base import Proposal
from fewshot_runner.cli.sweeps.search.space import swept_keys
from fewshot_runner.engine.stopping import merit
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.report.console import output
from fewshot_runner.report.results import with_interval
from fewshot_runner.report.sweep import number_of, sweep_table, test_key
from fewshot_runner.runs import DONE, FAILED, PRUNED, RUNNING, STOPPED, Busy


class SweepFailed(RunFailed):
    """Some jobs of a sweep failed; the others ran."""

    exit_code = 3


class SweepStopped(RunFailed):
    """A sweep was stopped by a signal; its manifest says how far it came."""

    def __init__(self, exit_code: int) -> None:
        name = signal.Signals(exit_code - 128).name
        super().__init__(f"stopped by {name}; the same command goes on with what is missing")
        self.exit_code = exit_code


class Sweep:
    """The jobs of one command, and what has become of them."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.search, self.launcher, self.manifest = planner.search, planner.launcher, planner.manifest
        self.swept = swept_keys(planner.space)
        self.open: dict[str, list[tuple[Entry, Proposal]]] = {}  # by fingerprint: under way, and their doubles
        self.ended: dict[str, Outcome] = {}  # by fingerprint: what has been done here, for doubles that come later
        self.traces: list[str] = []

    def run(self) -> None:
        code = 0
        with signals_raised() as came:
            try:
                with closing(self.launcher.run(self._jobs(), self.manifest.folder)) as running:
                    for job, ended in running:
                        outcome = self.ended[job.fingerprint] = ended if ended.run else with_run(job, ended)
                        for entry, proposal in self.open.pop(job.fingerprint):
                            self._end(proposal, entry, outcome)
                        if outcome.state == STOPPED or came:
                            code = outcome.exit_code
                            break
            except KeyboardInterrupt:
                code = 128 + signal.SIGINT
            if came:
                code = 128 + came[-1]
        if code and not self.manifest.jobs:  # stopped while they were planned: what the manifest said stands
            raise SweepStopped(code)
        if code:
            self._leave()
        self._report(code)

    def _jobs(self) -> Iterator[Job]:
        """The jobs that have something left to do."""
        for proposal, entry, job in self.planner.planned(to_run=True):
            if job is None:
                self._tell(proposal, entry, Outcome(FAILED, reason=entry["reason"]), FAILED)
            elif job.fingerprint in self.open:
                self.open[job.fingerprint].append((entry, proposal))
            elif (outcome := self.ended.get(job.fingerprint) or self._already(job)) is not None:
                if entry["state"] != outcome.state:  # since it was planned
                    self.manifest.note(entry, outcome)
                self._tell(proposal, entry, outcome, f"{outcome.state} already")
            else:
                self.open[job.fingerprint] = [(entry, proposal)]
                self.manifest.note(entry, Outcome(RUNNING))
                self.manifest.save()
                if sys.stderr.isatty():  # the head of what it shows of itself
                    print(f"{self._place(entry)} {self._swept(entry)}", file=sys.stderr, flush=True)
                yield job

    def _already(self, job: Job) -> Outcome | None:
        """How a job whose turn has come has ended before; its search is told what its run has come to."""
        found, state = self.planner.found(job)
        behind = found is not None and job.watch is not None and falls_behind(found, job.watch)
        return outcome_of(found, state) if state == DONE or (state == PRUNED and behind) else None

    def _end(self, proposal: Proposal, entry: Entry, outcome: Outcome) -> None:
        self.manifest.note(entry, outcome)
        self.manifest.save()
        self._tell(proposal, entry, outcome, outcome.state)

    def _tell(self, proposal: Proposal, entry: Entry, outcome: Outcome, verb: str) -> None:
        """Tells the search and the user how a job ended."""
        if outcome.state != STOPPED:
            self.search.tell(proposal, outcome.state, objective(entry))
        if outcome.trace:
            self.traces.append(f"job {number_of(entry)}\n{outcome.trace}")
        figure = with_interval(entry["result"]) if entry.get("result") else entry.get("reason", "").split("\n")[0]
        where = f"  {outcome.run}" if outcome.run else ""
        print(f"{self._place(entry)} {verb}  {self._swept(entry)}  {figure}{where}", file=sys.stderr, flush=True)

    def _place(self, entry: Entry) -> str:
        of_all = "" if self.search.adaptive else f"/{len(self.manifest.jobs)}"
        return f"[{number_of(entry)}{of_all}]"

    def _swept(self, entry: Entry) -> str:
        """The settings in which the jobs differ, as on the command line."""
        return shlex.join(o for o in entry["overrides"] if o.partition("=")[0] in self.swept)

    def _reason(self, entry: Entry) -> str:
        """Why a job failed, and which one it was unless the reason says it."""
        swept, reason = self._swept(entry), entry["reason"]
        return reason if reason.startswith(f"{swept}: ") else f"{swept}: {reason}"

    def _leave(self) -> None:
        """What was under way when the sweep was stopped waits for the next time."""
        for entries in self.open.values():
            for entry, _ in entries:
                entry["state"] = STOPPED
        self.manifest.save()

    def _report(self, code: int) -> None:
        self.manifest.save()
        jobs, folder = self.manifest.jobs, self.manifest.folder
        self._show_table()
        if best := best_of(jobs, self.planner.validated):
            words = [*config_option(self.planner.config_dir), *best["overrides"]]
            print(f"best on validation: fsl train {shlex.join(words)}")
        print(f"sweep: {folder}")
        for trace in self.traces:
            print(trace, file=sys.stderr)
        if code:
            raise SweepStopped(code)
        if failed := [job for job in jobs if job["state"] == FAILED]:
            lines = [f"failed: {self._reason(job)}" for job in failed]
            raise SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed\n" + "\n".join(lines))

    def show(self) -> None:
        """What a sweep would do, without doing it."""
        if self.search.adaptive:
            raise UserError("--dry-run: this search proposes nothing before it has results; leave --dry-run out")
        for _, entry, job in self.planner.planned(to_run=False):
            if entry["state"] == PENDING and self.planner.found(job)[0] is not None:
                entry["state"] = "to be resumed"
        self._show_table()

    def _show_table(self) -> None:
        console, title = output(), self.manifest.folder.name
        console.print(sweep_table(self.manifest.jobs, swept=self.swept, title=title, width=console.width))


def with_run(job: Job, outcome: Outcome) -> Outcome:
    """The outcome with the run that there is of the job: who was killed could not name it, nor say how it ended."""
    remove_lock(job)
    run, state = find_run(job)
    if run is None:
        return outcome
    if state == DONE:  # lost after its last step
        return Outcome(DONE, run.path)
    with suppress(Busy), run.held():
        status = run.read_status()
        if status["state"] == RUNNING:
            run.write_status(FAILED, step=status["step"], seconds=status["seconds"], reason=outcome.reason)
    return replace(outcome, run=run.path)


def config_option(config_dir: Path | None) -> list[str]:
    return [] if config_dir is None else [f"--config-dir={config_dir}"]


def best_of(jobs: Sequence[Entry], validated: Mapping[str, Mapping[str, Any]]) -> Entry | None:
    """The finished job with the best validation figure, where all are of one test, one kind of figure and one
    validation; `validated` says by fingerprint what that of a job is of.
    """
    done = [job for job in jobs if job["state"] == DONE and job.get("result") and job.get("validation") is not None]
    if not done or len(jobs) < 2:
        return None
    kinds = [(test_key(job), job["monitor"], validated[job["fingerprint"]]) for job in done]
    return max(done, key=objective) if all(kind == kinds[0] for kind in kinds) else None


def objective(job: Entry) -> float | None:
    """The best validation figure of a job as something to be raised."""
    value = job.get("validation")
    return None if value is None else merit(value, job["monitor"])
