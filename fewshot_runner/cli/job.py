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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fewshot_runner.engine.stopping import Pruned, Watch, merit
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.report.config import WITHOUT_EFFECT, flatten
from fewshot_runner.runs import DONE, FAILED, PRUNED, STOPPED, Busy, RunFolder

# What changes no result, or its last bits alone: two configs that differ here are the same job. Where data lie is told
# by dataset.source, and by these keys in runs of earlier versions as a relative path.
IMMATERIAL = (*WITHOUT_EFFECT, "choices", "name", "hardware.threads", "dataset.root", "dataset.path", "dataset.images")
SECONDS_BETWEEN_LOOKS = 0.5  # at a run that another process is at work on


@dataclass(frozen=True)
class Job:
    """What is to run: a composed config, the overrides that made it, and the fingerprint that it is known by.

    `watch`, of a search, may give it up after a validation, in whatever process it runs. `images` is the hash of the
    pictures that it is to run on, where these are a user's and so may be others than those of a run that is done.
    """

    number: int
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    fingerprint: str
    watch: Watch | None = None
    images: str | None = None

    def with_threads(self, threads: int) -> "Job":
        """The same with so many threads, unless its own config says how many."""
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
    material = {
        key: value
        for key, value in flatten(config).items()
        if not any(key == name or key.startswith(f"{name}.") for name in IMMATERIAL)
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True, default=str).encode()).hexdigest()[:16]


def find_run(job: Job, passed_over: Collection[Path] = ()) -> tuple[RunFolder | None, str | None]:
    """The run below `output_dir` that has this job's settings, whoever started it, and its state.

    A finished one is taken first, then the one that has come furthest; none of those `passed_over`.
    """
    choices = job.config["choices"]
    found = []
    for config in Path(job.config["output_dir"]).glob(f"{choices['dataset']}-{choices['method']}/*/config.yaml"):
        with contextlib.suppress(UserError, OSError, KeyError):  # damaged or just removed: no run to go on with
            if _fingerprint_of(config, config.stat().st_mtime_ns) == job.fingerprint:
                run = RunFolder(config.parent)
                status, results = run.read_status(), run.read_summary()["results"]
                state, step = status.get("state"), status.get("step", 0)
                if run.path in passed_over or (state == DONE and not (results and is_of_images(results, job.images))):
                    continue
                found.append(((state == DONE, step, config.parent.name), run, state))
    return max(found, key=lambda entry: entry[0])[1:] if found else (None, None)


def is_of_images(results: Sequence[Mapping[str, Any]], images: str | None) -> bool:
    """Whether these results are of the pictures of this hash, as far as both are known."""
    return images is None or results[0].get("files_hash", images) == images


@cache
def _fingerprint_of(config: Path, modified: int) -> str:
    return fingerprint(RunFolder(config.parent).read_config())


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
        return Outcome(PRUNED, find_run(job)[0].path, str(error))
    except (UserError, RunFailed, KeyboardInterrupt) as error:
        stopped_by = getattr(error, "exit_code", 0) if isinstance(error, RunFailed) else 0
        if isinstance(error, KeyboardInterrupt):
            stopped_by = 130
        run = find_run(job)[0]
        path = None if run is None else run.path
        if stopped_by > 128:
            return Outcome(STOPPED, path, str(error) or "interrupted", stopped_by)
        return Outcome(FAILED, path, str(error), stopped_by)
    except Exception as error:
        run = find_run(job)[0]
        reason = f"{type(error).__name__}: {error}"
        return Outcome(FAILED, None if run is None else run.path, reason, trace=traceback.format_exc())


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
            except DataChanged:  # a user's pictures, say; the run stays as it was
                of_other_data.append(run.path)
            except Busy:  # to ask beforehand would not help: another may come in between
                time.sleep(SECONDS_BETWEEN_LOOKS)


@contextlib.contextmanager
def alone_with(job: Job) -> Iterator[None]:
    """Waits for another sweep that is at work on the same job: before its data are read, it has no run to be found."""
    place = Path(job.config["output_dir"])
    with contextlib.suppress(OSError):  # told better when a run folder is made
        place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):
        yield
        return
    lock = lock_of(job)
    with FileLock(lock, poll_interval=SECONDS_BETWEEN_LOOKS):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


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
