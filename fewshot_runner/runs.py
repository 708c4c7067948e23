"""The run folder: the one place that knows the names of its files."""

import json
import os
import platform
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from fewshot_runner import atomic
from fewshot_runner.errors import UserError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SECTIONS = ("choices", "dataset", "model", "method", "episode", "hardware", "trainer", "eval")  # of every run's config
# What reading a damaged file raises: no permission (OSError), no UTF-8 or an impossible date (ValueError), no YAML,
# nested too deeply, a malformed timestamp (AttributeError, of PyYAML).
UNREADABLE = (OSError, ValueError, yaml.YAMLError, RecursionError, AttributeError)
CONFIG, STATUS, SUMMARY = "config.yaml", "status.json", "summary.json"
BEST, STEP, STEPS = "best.pt", "step-{:08d}.pt", "step-*.pt"  # checkpoints: one, one of a step, all of steps
EXPORT, WEIGHTS = "export", "model.safetensors"  # a folder inside a run; in it, beside a copy of the config
RUNNING, DONE, STOPPED, PRUNED, FAILED = "running", "done", "stopped", "pruned", "failed"
# Keys of a result that tell what came out and not what was measured, as does the key that its metric names.
LONG_FIGURES = ("tasks", "further", "confusion")  # which the summary of the run alone tells
FIGURES = ("ci95", "unit", "tasks_count", *LONG_FIGURES)


class Busy(UserError):
    """Another process is at work on the run."""


def _inside(name: str) -> property:
    """A path in the run folder, computed on access: comparing a thousand runs touches few of them."""
    return property(lambda run: run.path / name)


class RunFolder:
    """`outputs/<dataset>-<method>/<timestamp>-<random id>/` and what lies in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    config = _inside(CONFIG)
    overrides = _inside("overrides.yaml")
    status = _inside(STATUS)
    metrics = _inside("metrics.jsonl")
    summary = _inside(SUMMARY)
    environment = _inside("env.json")
    checkpoints = _inside("checkpoints")
    tasks = _inside("tasks")
    analysis = _inside("analysis")
    analysis_content = _inside("analysis/analysis.json")
    export = _inside(EXPORT)
    submission = _inside("submission.csv")
    tensorboard = _inside("tb")
    log = _inside("train.log")
    lock = _inside(".lock")

    @classmethod
    def claim(cls, output_dir: Path, experiment: str) -> "RunFolder":
        """Makes a new folder below `output_dir/experiment`; simultaneous callers get different ones."""
        try:
            (output_dir / experiment).mkdir(parents=True, exist_ok=True)
            run = cls(_new_folder(output_dir / experiment))
            run.checkpoints.mkdir()
            run.tasks.mkdir()
        except OSError as error:
            raise UserError(
                f"output_dir={output_dir}: cannot make a run folder there ({error.strerror}); "
                "choose a folder you may write to, as in output_dir=/tmp/outputs"
            ) from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run; raises `UserError` where `path` is not one."""
        if not str(path):
            raise UserError("no run is named; give the folder of one, which the last line of fsl train names")
        run = cls(Path(path))
        try:
            if not run.path.is_dir():
                as_setting = "give it without run=, or look: " * str(path).startswith("run=")
                raise UserError(
                    f"{path}: there is no such run folder; {as_setting}`fsl compare` lists the runs below outputs/"
                )
            missing = [file.name for file in (run.config, run.status) if not file.is_file()]
        except OSError as error:  # a name that is too long, or behind a door that is closed
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if missing:
            inner = sorted(found.path for found in cls.below(run.path))[-1:]
            hint = f"; did you mean {inner[0]}?" if inner else ""
            raise UserError(f"{path}: not a run folder ({' and '.join(missing)} not found){hint}")
        return run

    @classmethod
    def below(cls, output_dir: Path, experiment: str = "*") -> Iterator["RunFolder"]:
        """The folders with a config where `claim` makes them, in no order."""
        return (cls(config.parent) for config in output_dir.glob(f"{experiment}/*/{CONFIG}"))

    @contextmanager
    def held(self, *, patience: float = 0.5) -> Iterator[None]:
        """Keeps other processes from working in the same folder; raises `Busy` where one does.

        Who merely looks (`is_abandoned`) has it for some milliseconds, for which `patience` waits, in seconds.
        """
        from filelock import FileLock, Timeout  # late: most of a thousand runs are done

        lock = FileLock(self.lock, timeout=patience)
        try:
            lock.acquire()
        except Timeout as error:
            raise Busy(f"{self.path}: another process is at work on this run; wait for it, or stop it") from error
        try:
            yield
        finally:
            lock.release()

    def is_abandoned(self) -> bool:
        """Whether a run of this machine is said to be running, and its process is gone: killed, or by a power cut."""
        try:
            with self.held(patience=0) if self.lock.exists() else nullcontext():  # nobody writes the status meanwhile
                status = self.read_status()
                return status.get("state") == RUNNING and status.get("host") == platform.node()
        except (Busy, OSError):  # the latter in a folder of somebody else's, where nothing can be told
            return False

    def remove_half_written(self) -> None:
        """Removes what a kill in the middle of a save has left. Call it while nobody else is at work on the run."""
        for half_written in self.path.rglob(".*.tmp"):
            half_written.unlink(missing_ok=True)

    def tasks_of(self, test: str) -> Path:
        """The file of every task's figure in a test."""
        return self.tasks / f"{test}.npy"

    def submission_of(self, test: str) -> Path:
        """The file of a test's answers, where `submission` holds those of another."""
        return self.submission.with_stem(f"{self.submission.stem}-{test}")

    @property
    def quoted(self) -> str:
        """Its path as a word of a command."""
        return shlex.quote(str(self.path))

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    def read_config(self) -> dict[str, Any]:
        """The resolved config, plain values, with every section of `SECTIONS`; raises `UserError`."""
        with _damage_told(self.config):
            content = yaml.load(self.config.read_text(), Loader=LOADER)
        if not isinstance(content, dict):
            raise UserError(f"{self.config}: holds no config; the run folder is damaged")
        if missing := [section for section in SECTIONS if not isinstance(content.get(section), dict)]:
            raise UserError(
                f"{self.config}: no config of a run ({', '.join(missing)} not found); the run folder is damaged, or "
                "another program's"
            )
        return content

    def read_status(self) -> dict[str, Any]:
        return self._read_json(self.status)

    def read_environment(self) -> dict[str, Any]:
        """What the run was started with; empty where nothing says so."""
        return self._read_json(self.environment) if os.path.lexists(self.environment) else {}

    def read_sessions(self) -> list[dict[str, Any]]:
        """What the run was started with, and then what it was resumed with, each time that was something else."""
        began = self.read_environment()
        resumed = began.get("resumed", [])
        if not (isinstance(resumed, list) and all(isinstance(session, dict) for session in resumed)):
            raise UserError(f"{self.environment}: says not how the run went on; the run folder is damaged")
        return [began, *resumed]

    def read_data(self) -> dict[str, Any]:
        """What the run was started on, as the entries of a `Provenance`; empty in a run of an earlier version."""
        return self.read_environment().get("data", {})

    def read_summary(self) -> dict[str, Any]:
        """The results so far; an empty list of them while the run has none."""
        return self._read_json(self.summary) if os.path.lexists(self.summary) else {"results": []}

    def _read_json(self, path: Path) -> dict[str, Any]:
        with _damage_told(path):
            content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise UserError(f"{path}: holds no JSON object; the run folder is damaged")
        return content

    def write_status(self, state: str, *, step: int, seconds: float, reason: str | None = None) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            started = self.read_status()["started"]
        except (UserError, KeyError):
            started = now
        status = {
            "state": state, "step": step, "seconds": round(seconds, 1), "started": started, "updated": now,
            "host": platform.node(),
        }  # fmt: skip
        if reason is not None:
            status["reason"] = reason
        atomic.write_json(self.status, status)

    def write_summary(self, summary: dict[str, Any]) -> None:
        atomic.write_json(self.summary, summary)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps; a last line that was cut off by a kill is left out."""
        with _damage_told(self.metrics):
            return [json.loads(line) for line in self._metric_lines()]

    def cut_metrics(self, step: int) -> None:
        """Drops what was logged after `step`, as a run that goes on from there logs it again.

        So is what a power cut has left of it, which may be anything; lines up to `step` were on disk before its
        checkpoint was.
        """
        with _damage_told(self.metrics):
            lines = self._metric_lines()
            while lines and not _is_logged_by(lines[-1], step):
                lines.pop()
            kept = [json.loads(line) for line in lines]
        atomic.write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def _metric_lines(self) -> list[str]:
        return self.metrics.read_text(errors="replace").split("\n")[:-1] if os.path.lexists(self.metrics) else []


def experiment_of(choices: Mapping[str, str]) -> str:
    """The folder that runs of these choices of groups share."""
    return f"{choices['dataset']}-{choices['method']}"


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Raises `UserError` where reading `path` finds a damaged file."""
    try:
        yield
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({error}); the run folder is damaged") from error


def _is_logged_by(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, LookupError, TypeError):
        return False


def _new_folder(parent: Path) -> Path:
    """A folder that this call made, whoever else makes folders there at the same time."""
    while True:
        path = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
