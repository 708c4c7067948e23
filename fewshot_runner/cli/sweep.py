"""The jobs of fsl train -m, which can be stopped, killed and issued again.

A job is known by the hash of its resolved config, and a run below `output_dir` with these very settings is its run,
whoever started it: taken as it is where it is done, resumed where it was interrupted. One that the search gave up stays
so as long as the search has not changed its mind.
"""

import json
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from fewshot_runner.cli.compose import Composer
from fewshot_runner.cli.job import Job, Outcome, falls_behind, find_run, fingerprint, remove_lock
from fewshot_runner.cli.launchers.base import Launcher
from fewshot_runner.cli.manifest import PENDING, Entry, Manifest
from fewshot_runner.cli.search.base import Proposal, Search
from fewshot_runner.cli.search.space import Space, swept_keys
from fewshot_runner.engine.stopping import merit
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.report.console import output
from fewshot_runner.report.results import with_interval
from fewshot_runner.report.sweep import sweep_table, test_of
from fewshot_runner.runs import DONE, FAILED, PRUNED, RUNNING, STOPPED, Busy, RunFolder

OF_USERS = "path"  # the key of data sets that are a user's own


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

    def __init__(
        self, space: Space, *, search: Search, launcher: Launcher, manifest: Manifest, config_dir: Path | None
    ) -> None:
        self.space = space
        self.search = search
        self.launcher = launcher
        self.manifest = manifest
        self.config_dir = config_dir
        self.compose = Composer(config_dir)
        self.done: dict[str, RunFolder] = {}  # by fingerprint
        self.open: dict[str, list[tuple[Entry, Proposal]]] = {}  # by fingerprint: under way, and their doubles
        self.traces: list[str] = []
        self.images: dict[str, str | None] = {}  # hashes of users' pictures, by the data set's config
        self.total: int | None = None
        self.monitor: str | None = None  # of the first job

    def run(self) -> None:
        code = 0
        with signals_raised() as came:
            try:
                with closing(self.launcher.run(self._jobs(), self.manifest.folder)) as running:
                    for job, ended in running:
                        outcome = ended if ended.run else with_run(job, ended)
                        for entry, proposal in self.open.pop(job.fingerprint):
                            self._end(entry, proposal, outcome)
                        if outcome.state == STOPPED:
                            code = outcome.exit_code
                            break
            except KeyboardInterrupt:
                code = 128 + signal.SIGINT
            if came:
                code = 128 + came[-1]
        if code:
            self._leave()
        self._report(code)

    def _planned(self, *, to_run: bool) -> Iterator[tuple[Proposal, Entry, Job | None]]:
        """Every proposal with its entry in the manifest, and the job unless its settings are refused; `to_run`, what
        is missing is going to be run.
        """
        proposals = self.search.proposals(self.space, self.manifest.folder)
        if not self.search.adaptive:
            planned = [self._plan(proposal, to_run) for proposal in proposals]
            self.total = len(planned)
            errors = [entry for _, entry, job in planned if job is None]
            if len(errors) == len(planned):  # a slip of the pen in the command
                raise UserError(errors[0]["reason"])
            yield from planned
        else:
            for proposal in proposals:
                yield self._plan(proposal, to_run)

    def _plan(self, proposal: Proposal, to_run: bool) -> tuple[Proposal, Entry, Job | None]:
        try:
            config = self.compose(proposal.overrides)
            self._check_monitor(config["trainer"]["monitor"])
            job = Job(proposal.number, proposal.overrides, config, fingerprint(config), proposal.watch)
            if not self.launcher.elsewhere:
                if self._found(job)[1] == DONE and OF_USERS in config["dataset"]:
                    job = replace(job, images=self._images(config))
                    self.done.pop(job.fingerprint)
                found, state = self._found(job)
                if to_run and state != DONE:
                    self.launcher.prepare()
                if found is None:
                    check(config)
        except UserError as error:
            entry = self.manifest.plan(proposal.number, proposal.overrides, None)
            entry["reason"] = str(error)
            return proposal, entry, None
        return proposal, self.manifest.plan(proposal.number, proposal.overrides, job.fingerprint), job

    def _found(self, job: Job) -> tuple[RunFolder | None, str | None]:
        """What there is of a job, as `find_run` finds it; a run that is done stays so, and is looked for once."""
        if job.fingerprint not in self.done:
            found, state = find_run(job)
            if found is None or state != DONE:
                return found, state
            self.done[job.fingerprint] = found
        return self.done[job.fingerprint], DONE

    def _images(self, config: Mapping[str, Any]) -> str | None:
        """The hash of the pictures as they are now; None where they are no longer there, and may stay as they were."""
        from fewshot_runner.cli.build import Builder  # late: what is done already is told without torch

        described = json.dumps(config["dataset"], sort_keys=True, default=str)
        if described not in self.images:
            self.images[described] = None
            with suppress(UserError):
                self.images[described] = Builder(config).dataset.files_hash
        return self.images[described]

    def _check_monitor(self, monitor: str) -> None:
        """Raises `UserError` where a search that learns from validation figures would be told of two kinds of them."""
        self.monitor = self.monitor or monitor
        if self.search.adaptive and monitor != self.monitor:
            raise UserError(
                f"trainer.monitor={monitor}: this search compares validation figures, and began with {self.monitor}; "
                "give one trainer.monitor, or set sweep=grid or sweep=random"
            )

    def _jobs(self) -> Iterator[Job]:
        """The jobs that have something left to do."""
        for proposal, entry, job in self._planned(to_run=True):
            if job is None:
                self._end(entry, proposal, Outcome(FAILED, reason=entry["reason"]))
            elif job.fingerprint in self.open:
                self.open[job.fingerprint].append((entry, proposal))
            else:
                found, state = self._found(job)
                behind = found is not None and job.watch is not None and falls_behind(found, job.watch)
                if state == DONE or (state == PRUNED and behind):
                    reason = None if state == DONE else found.read_status().get("reason")
                    self._end(entry, proposal, Outcome(state, found.path, reason), f"{state} already")
                    continue
                self.open[job.fingerprint] = [(entry, proposal)]
                self.manifest.begin(entry, RUNNING)
                if sys.stderr.isatty():  # the head of what it shows of itself
                    print(f"{self._place(entry)} {self._swept(entry)}", file=sys.stderr, flush=True)
                yield job

    def _end(self, entry: Entry, proposal: Proposal, outcome: Outcome, verb: str | None = None) -> None:
        self.manifest.end(entry, outcome, save=verb is None)
        if outcome.state != STOPPED:
            self.search.tell(proposal, outcome.state, objective(entry))
        if outcome.trace:
            self.traces.append(f"job {entry['number']}\n{outcome.trace}")
        figure = with_interval(entry["result"]) if entry.get("result") else entry.get("reason", "").split("\n")[0]
        where = f"  {outcome.run}" if outcome.run else ""
        said = f"{self._place(entry)} {verb or outcome.state}  {self._swept(entry)}  {figure}{where}"
        print(said, file=sys.stderr, flush=True)

    def _place(self, entry: Entry) -> str:
        return f"[{entry['number'] + 1}/{self.total}]" if self.total else f"[{entry['number'] + 1}]"

    def _swept(self, entry: Entry) -> str:
        """The settings in which the jobs differ, as on the command line."""
        keys = swept_keys(self.space)
        return shlex.join(o for o in entry["overrides"] if o.partition("=")[0] in keys)

    def _leave(self) -> None:
        """What was under way when the sweep was stopped waits for the next time."""
        for entries in self.open.values():
            for entry, _ in entries:
                entry["state"] = STOPPED
        self.manifest.save()

    def _report(self, code: int) -> None:
        self.manifest.save()
        jobs, folder = self.manifest.jobs, self.manifest.folder
        output().print(sweep_table(jobs, swept=swept_keys(self.space), title=folder.name))
        if best := best_of(jobs):
            words = [*config_option(self.config_dir), *best["overrides"]]
            print(f"best on validation: fsl train {shlex.join(words)}")
        print(f"sweep: {folder}")
        for trace in self.traces:
            print(trace, file=sys.stderr)
        if code:
            raise SweepStopped(code)
        if failed := [job for job in jobs if job["state"] == FAILED]:
            lines = [f"failed: {self._swept(job)}: {job['reason']}" for job in failed]
            raise SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed\n" + "\n".join(lines))

    def show(self) -> None:
        """What a sweep would do, without doing it."""
        if self.search.adaptive:
            raise UserError("--dry-run: this search proposes nothing before it has results; leave --dry-run out")
        for _, entry, job in self._planned(to_run=False):
            found, state = self._found(job) if job else (None, FAILED)
            entry["state"] = {None: PENDING, DONE: DONE, FAILED: FAILED}.get(state, "to be resumed")
            if found is not None and state == DONE:
                entry["run"] = str(found.path)
        output().print(sweep_table(self.manifest.jobs, swept=swept_keys(self.space), title=self.manifest.folder.name))


def with_run(job: Job, outcome: Outcome) -> Outcome:
    """The outcome with the run that there is of the job: who was killed could not name it, nor say how it ended."""
    remove_lock(job)
    run = find_run(job)[0]
    if run is None:
        return outcome
    with suppress(Busy), run.held():
        status = run.read_status()
        if status["state"] == RUNNING:
            run.write_status(FAILED, step=status["step"], seconds=status["seconds"], reason=outcome.reason)
    return replace(outcome, run=run.path)


def check(config: Mapping[str, Any]) -> None:
    """Raises `UserError` for whatever can be told to be wrong before data are read."""
    from fewshot_runner.cli.build import Builder  # late: what is done already is told without torch

    Builder(config)


def config_option(config_dir: Path | None) -> list[str]:
    return [] if config_dir is None else [f"--config-dir={config_dir}"]


def best_of(jobs: Sequence[Entry]) -> Entry | None:
    """The finished job with the best validation figure, where there are more, of one test and one kind of figure."""
    done = [job for job in jobs if job["state"] == DONE and job.get("result") and job.get("validation") is not None]
    if len(done) < 2 or len({(test_of(job), job["monitor"]) for job in done}) > 1:
        return None
    return max(done, key=objective)


def objective(job: Entry) -> float | None:
    """The best validation figure of a job as something to be raised."""
    value = job.get("validation")
    return None if value is None else merit(value, job["monitor"])


@contextmanager
def signals_raised() -> Iterator[list[int]]:
    """SIGTERM raises as SIGINT does, so that what is under way is put down and the manifest written; yields which came.

    KeyboardInterrupt in both cases: of what a handler raises, Ray passes on nothing else. SIGINT is set as well: a
    shell may have started this process in the background, where it is ignored.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
