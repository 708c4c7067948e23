"""fsl train -m: many runs from one command, which can be stopped, killed and issued again.

A sweep has a folder of its own, named after its settings, so that the same command finds it again; in it lies the
manifest. A job is known by the hash of its resolved config, and a run below `output_dir` with these very settings is
its run, whoever started it: taken as it is where it is done, resumed where it was interrupted.
"""

import hashlib
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from fewshot_runner.cli.arguments import checked
from fewshot_runner.cli.compose import compose, composed, hydra_errors, parsed
from fewshot_runner.cli.job import Job, Outcome, find_run, fingerprint
from fewshot_runner.cli.launchers.base import Launcher
from fewshot_runner.cli.manifest import PENDING, Entry, Manifest
from fewshot_runner.cli.search.base import Proposal, Search
from fewshot_runner.cli.search.space import Choice, Space, space_of
from fewshot_runner.cli.targets import target_of
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.report.console import output
from fewshot_runner.report.results import with_interval
from fewshot_runner.report.sweep import sweep_table, test_of
from fewshot_runner.runs import DONE, FAILED, RUNNING, STOPPED

# Of the sweep itself, not of its jobs; and what does not make it another sweep.
ITS_OWN = ("sweep", "launcher")
SAME_SWEEP = ("output_dir", "name", "hardware.threads")
SAME_SEARCH = ("folder", "trials", "params")


class SweepFailed(RunFailed):
    """Some jobs of a sweep failed; the others ran."""

    exit_code = 3


class SweepStopped(RunFailed):
    """A sweep was stopped by a signal; its manifest says how far it came."""

    def __init__(self, exit_code: int, folder: Path) -> None:
        name = signal.Signals(exit_code - 128).name
        super().__init__(f"stopped by {name}; the same command goes on with what is missing")
        self.exit_code = exit_code


def run(overrides: Sequence[str], *, config_dir: Path | None, dry_run: bool) -> None:
    """Runs what is missing of a sweep and prints its table. Raises `SweepFailed` or `SweepStopped`."""
    refuse_hydras_own(overrides)
    read = parsed(overrides)
    plain = [override.input_line for override in read if not override.is_sweep_override()]
    with hydra_errors():
        config = composed(plain, config_dir=config_dir)
        described, placed = (OmegaConf.to_container(config[group], resolve=True) for group in ITS_OWN)
        output_dir = Path(config.output_dir)
    params = [f"{key}={value}" for key, value in (described.pop("params", None) or {}).items()]
    space = space_of([*parsed(params), *(o for o in read if group_of(o.key_or_group) not in ITS_OWN)])
    folder = described.pop("folder", None)
    folder = Path(folder) if folder else output_dir / "sweeps" / sweep_name(space, described)
    sweep = Sweep(
        space,
        search=make(described, "sweep", Search),
        launcher=make(placed, "launcher", Launcher),
        manifest=Manifest(folder, overrides),
        config_dir=config_dir,
    )
    if dry_run:
        sweep.show()
        return
    with held(folder):
        sweep.run()


def refuse_hydras_own(overrides: Sequence[str]) -> None:
    for override in overrides:
        for hydras, ours in (("hydra/launcher", "launcher"), ("hydra.launcher", "launcher"), ("hydra/sweeper", "sweep"),
                             ("hydra.sweeper", "sweep"), ("hydra.sweep", "sweep")):  # fmt: skip
            if override.startswith((f"{hydras}=", f"{hydras}.")):
                raise UserError(f"{override}: sweeps of fsl have groups of their own; see fsl list {ours}")


def group_of(key: str) -> str:
    return key.split(".")[0].split("/")[0]


def sweep_name(space: Space, described: dict[str, Any]) -> str:
    """The swept keys for people, and a hash of all that makes it this sweep."""
    content = {
        "space": sorted((key, repr(values)) for key, values in space.items() if key.lstrip("+") not in SAME_SWEEP),
        "search": {key: value for key, value in described.items() if key not in SAME_SEARCH},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(key.lstrip("+").rpartition(".")[2] for key in swept_keys(space)), digest])[-60:].lstrip("-")


def swept_keys(space: Space) -> list[str]:
    return [key for key, values in space.items() if not (isinstance(values, Choice) and len(values.values) < 2)]


def make(described: dict[str, Any], key: str, kind: type) -> Any:
    """The search or launcher that `_target_` names; it has to be one of ours."""
    target, arguments = target_of(described, key, ("fewshot_runner",), remedy=f"see fsl list {key}")
    if not (isinstance(target, type) and issubclass(target, kind)):
        raise UserError(
            f"{key}._target_={described['_target_']}: not a {kind.__name__.lower()} of fsl; see fsl list {key}"
        )
    checked(target, arguments, key=key)
    return target(**arguments)


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
        self.open: dict[str, list[tuple[Entry, Proposal]]] = {}  # by fingerprint: under way, and their doubles
        self.traces: list[str] = []
        self.total: int | None = None

    def run(self) -> None:
        code = 0
        try:
            with signals_raised():
                running = self.launcher.run(self._jobs(), self.manifest.folder)
                try:
                    for job, outcome in running:
                        for entry, proposal in self.open.pop(job.fingerprint):
                            self._end(entry, proposal, outcome)
                        if outcome.state == STOPPED:
                            code = outcome.exit_code
                            break
                finally:
                    running.close()
        except (KeyboardInterrupt, Terminated) as error:
            code = 143 if isinstance(error, Terminated) else 130
        if code:
            self._leave()
        self._report(code)

    def _planned(self) -> Iterator[tuple[Proposal, Entry, Job | None]]:
        """Every proposal with its entry in the manifest, and the job unless its settings cannot be composed."""
        proposals = self.search.proposals(self.space, self.manifest.folder)
        if not self.search.adaptive:
            planned = [self._plan(proposal) for proposal in proposals]
            self.total = len(planned)
            errors = [entry for _, entry, job in planned if job is None]
            if len(errors) == len(planned):  # a slip of the pen in the command
                raise UserError(errors[0]["reason"])
            yield from planned
        else:
            for proposal in proposals:
                yield self._plan(proposal)

    def _plan(self, proposal: Proposal) -> tuple[Proposal, Entry, Job | None]:
        try:
            config = compose(proposal.overrides, config_dir=self.config_dir)
        except UserError as error:
            entry = self.manifest.plan(proposal.number, proposal.overrides, None)
            entry["reason"] = str(error)
            return proposal, entry, None
        job = Job(proposal.number, proposal.overrides, config, fingerprint(config))
        return proposal, self.manifest.plan(proposal.number, proposal.overrides, job.fingerprint), job

    def _jobs(self) -> Iterator[Job]:
        """The jobs that have something left to do."""
        for proposal, entry, job in self._planned():
            if job is None:
                self._end(entry, proposal, Outcome(FAILED, reason=entry["reason"]))
            elif job.fingerprint in self.open:
                self.open[job.fingerprint].append((entry, proposal))
            else:
                found, state = find_run(job)
                if state == DONE:
                    self._end(entry, proposal, Outcome(DONE, found.path), "done already")
                    continue
                self.open[job.fingerprint] = [(entry, proposal)]
                self.manifest.begin(entry, RUNNING)
                yield job

    def _end(self, entry: Entry, proposal: Proposal, outcome: Outcome, verb: str | None = None) -> None:
        self.manifest.end(entry, outcome, save=verb is None)
        if outcome.state != STOPPED:
            self.search.tell(proposal, objective(entry))
        if outcome.trace:
            self.traces.append(f"job {entry['number']}\n{outcome.trace}")
        count = f"{entry['number'] + 1}" + (f"/{self.total}" if self.total else "")
        figure = with_interval(entry["result"]) if entry.get("result") else entry.get("reason", "").split("\n")[0]
        where = f"  {outcome.run}" if outcome.run else ""
        print(f"[{count}] {verb or outcome.state}  {self._swept(entry)}  {figure}{where}", file=sys.stderr, flush=True)

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
        output().print(sweep_table(jobs, swept=[key.lstrip("+") for key in swept_keys(self.space)], title=folder.name))
        if best := best_of(jobs):
            print(f"best on validation: fsl train {shlex.join(best['overrides'])}")
        print(f"sweep: {folder}")
        for trace in self.traces:
            print(trace, file=sys.stderr)
        if code:
            raise SweepStopped(code, folder)
        if failed := [job for job in jobs if job["state"] == FAILED]:
            lines = [f"failed: {self._swept(job)}: {job['reason']}" for job in failed]
            raise SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed\n" + "\n".join(lines))

    def show(self) -> None:
        """What a sweep would do, without doing it."""
        for _, entry, job in self._planned():
            found, state = find_run(job) if job else (None, FAILED)
            entry["state"] = {None: PENDING, DONE: DONE, FAILED: FAILED}.get(state, "to be resumed")
            if found is not None and state == DONE:
                entry["run"] = str(found.path)
        output().print(sweep_table(self.manifest.jobs, swept=swept_keys(self.space), title=self.manifest.folder.name))


def best_of(jobs: Sequence[Entry]) -> Entry | None:
    """The job with the best validation figure, where more than one took the same test."""
    done = [job for job in jobs if job.get("result") and job.get("validation") is not None]
    if len(done) < 2 or len({test_of(job) for job in done}) > 1:
        return None
    return max(done, key=objective)


def objective(job: Entry) -> float | None:
    """The validation figure of a finished job as something to be raised: a loss with its sign turned."""
    value = job.get("validation")
    return -value if value is not None and job["monitor"].endswith("loss") else value


class Terminated(BaseException):
    """SIGTERM between two jobs."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """SIGTERM raises, as SIGINT does, so that what is under way is put down and the manifest written.

    SIGINT is set as well: a shell may have started this process in the background, where it is ignored.
    """

    def note(number: int, frame: FrameType | None) -> None:
        raise Terminated

    handlers = {signal.SIGTERM: note, signal.SIGINT: signal.default_int_handler}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a second process from the same sweep."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder}: another process is at work on this sweep") from error
    except OSError as error:
        raise UserError(
            f"output_dir={folder.parents[1]}: cannot make a sweep folder there ({error.strerror}); "
            "choose a folder you may write to, as in output_dir=/tmp/outputs"
        ) from error
    try:
        yield
    finally:
        if {path.name for path in folder.iterdir()} <= {".lock"}:  # refused: as if nothing had been asked
            (folder / ".lock").unlink(missing_ok=True)
            for empty in [folder, *folder.parents[:2]]:
                with suppress(OSError):
                    empty.rmdir()
        lock.release()
