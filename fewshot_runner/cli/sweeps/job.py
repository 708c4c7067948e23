"""One job of a sweep: which run it is already, if any, and how it is brought to its end."""

import contextlib
import hashlib
import io
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fewshot_runner.cli.shortage import shortage
from fewshot_runner.cli.user_code import code_of
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.engine.stopping import Pruned, Watch, merit
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.report.records import are_results, is_number
from fewshot_runner.runs import DONE, FAILED, PRUNED, STOPPED, Busy, RunFolder, experiment_of
from fewshot_runner.settings import SAME_JOB, flatten, is_below

SECONDS_BETWEEN_LOOKS = 0.5  # at a run that another process is at work on


@dataclass(frozen=True)
class Job:
    """What is to run: a composed config, the overrides that made it, and the fingerprint that it is known by.

    `watch`, of a search, may give it up after a validation, in whatever process it runs. `data` is what it is to run
    on, where that is a user's and so may have changed since a run of these settings.
    """

    number: int
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    fingerprint: str
    watch: Watch | None = None
    data: Provenance | None = None

    def with_threads(self, threads: int) -> "Job":
        """This job with so many threads, unless its own config says how many."""
        hardware = self.config["hardware"]
        if hardware["threads"] != "auto":
            return self
        return replace(self, config={**self.config, "hardware": {**hardware, "threads": threads}})


@dataclass(frozen=True)
class Outcome:
    """How a job ended: DONE; PRUNED or FAILED, with a reason (of a defect of ours the `trace` as well); or STOPPED by a
    signal.
    """

    state: str
    run: Path | None = None
    reason: str | None = None
    exit_code: int = 0
    trace: str = ""


def fingerprint(config: Mapping[str, Any]) -> str:
    """A hash of all settings that a run's results follow from; the seed and the data are among them."""
    material = {key: value for key, value in flatten(config).items() if not is_below(key, SAME_JOB)}
    return hashlib.sha256(json.dumps(material, sort_keys=True, default=str).encode()).hexdigest()[:16]


def find_run(job: Job, passed_over: Collection[Path] = ()) -> tuple[RunFolder | None, str | None]:
    """The run below `output_dir` that has this job's settings, whoever started it, and its state.

    A finished one is taken first, then the one that has come furthest; none on other data or of other code of the
    user's, and none `passed_over`.
    """
    found, code = [], code_of(job.config["trusted_packages"])
    for run in RunFolder.below(Path(job.config["output_dir"]), experiment_of(job.config["choices"])):
        with contextlib.suppress(UserError, OSError, KeyError):  # damaged or just removed: no run to go on with
            if _fingerprint_of(run.path, run.config.stat().st_mtime_ns) == job.fingerprint:
                status, results = run.read_status(), run.read_summary()["results"]
                state, step = status.get("state"), status.get("step")
                if run.path in passed_over or not are_results(results) or (state == DONE and not results):
                    continue
                if job.data is not None and job.data.changes(run.read_data() or (results[0] if results else {})):
                    continue
                if code is not None and {session.get("code") for session in run.read_sessions()} != {code}:
                    continue
                rank = (state == DONE, step if is_number(step) else 0, run.path.name)
                found.append((rank, run, state))
    return max(found, key=lambda entry: entry[0])[1:] if found else (None, None)


@cache
def _fingerprint_of(run: Path, modified: int) -> str:
    return fingerprint(RunFolder(run).read_config())


def falls_behind(run: RunFolder, watch: Watch) -> bool:
    """Whether `watch` gives up on the validation figures that `run` has come to; it is told all of them."""
    with contextlib.suppress(UserError):  # damaged: nothing is known
        monitor = run.read_config()["trainer"]["monitor"]
        curve = [(line["step"], line["val"][monitor]) for line in run.read_metrics() if "val" in line]
        answers = [watch(step, merit(value, monitor)) for step, value in curve]
        return any(answers)
    return False


def perform(job: Job, *, quiet: bool) -> Outcome:
    """Brings `job` to its end in this process: nothing where it is done, from its checkpoint where it was interrupted.

    What the run says on standard output is the sweep's to say; with `quiet`, on standard error as well.
    """
    said = io.StringIO()
    try:
        with isolated(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said if quiet else sys.stderr):
            return Outcome(DONE, _finished(job).path)
    except Pruned as error:
        return Outcome(PRUNED, path_of(job), str(error))
    except (UserError, RunFailed, KeyboardInterrupt) as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 0)
        run, state = find_run(job)
        path = None if run is None else run.path
        if code > 128 and state == DONE:  # the signal came after its last step
            return Outcome(DONE, path)
        return Outcome(STOPPED if code > 128 else FAILED, path, str(error) or "interrupted", code)
    except Exception as error:
        if (reason := shortage(error)) is not None:
            return Outcome(FAILED, path_of(job), reason)
        return Outcome(FAILED, path_of(job), f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def path_of(job: Job) -> Path | None:
    """Where the run of a job lies, if it has one."""
    run = find_run(job)[0]
    return None if run is None else run.path


def _finished(job: Job) -> RunFolder:
    from fewshot_runner.cli import session  # late: what is done already is told without torch
    from fewshot_runner.engine.experiment import DataChanged

    of_other_data: list[Path] = []
    with alone_with(job):
        while True:
            run, state = find_run(job, of_other_data)
            if run is None:
                return session.start(dict(job.config), list(job.overrides), watch=job.watch, brief=True)
            if state == DONE:
                return run
            try:
                session.resume(run, watch=job.watch, brief=True)
                return run
            except DataChanged:  # in a run of an earlier version, which says it in its checkpoint alone
                of_other_data.append(run.path)
            except Busy:  # to ask beforehand would not help: another may come in between
                time.sleep(SECONDS_BETWEEN_LOOKS)


@contextlib.contextmanager
def alone_with(job: Job) -> Iterator[None]:
    """Waits for another sweep that is at work on the same job.

    This takes a lock: a job has no run folder until its data are read, so `find_run` cannot see that it has begun.
    """
    place = Path(job.config["output_dir"])
    with contextlib.suppress(OSError):  # told better when a run folder is made
        place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):
        yield
        return
    path = lock_of(job)
    lock = FileLock(path, poll_interval=SECONDS_BETWEEN_LOOKS)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another sweep is at work on this job; its result is waited for", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def lock_of(job: Job) -> Path:
    return Path(job.config["output_dir"]) / f".{job.fingerprint}.lock"


def remove_lock(job: Job) -> None:
    """Where a kill has left it, and no other sweep holds it."""
    lock = lock_of(job)
    with contextlib.suppress(Timeout, OSError), FileLock(lock, timeout=0):
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Undoes what a job leaves behind in its process: random state, threads, filters of warnings, memory."""
    import gc

    import torch

    threads = torch.get_num_threads()
    gc.freeze()  # what is there already, all that was imported, need not be looked through afterwards
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            yield
    finally:
        torch.set_num_threads(threads)
        gc.collect()  # a run's parts refer to each other; their memory is the next job's
        gc.unfreeze()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
