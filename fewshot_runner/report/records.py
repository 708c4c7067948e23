"""Run folders as a comparison knows them: read once, quickly, whatever state they are in."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fewshot_runner.errors import UserError
from fewshot_runner.report.line import one_line
from fewshot_runner.report.results import figure_of
from fewshot_runner.report.sections import parse_settings
from fewshot_runner.runs import CONFIG, DONE, EXPORT, RUNNING, STATUS, SUMMARY, UNREADABLE, RunFolder

READ = (CONFIG, STATUS, SUMMARY)  # of a run folder, by everybody who compares runs
KILLED = "killed"  # the state of a run that says it is running, and whose process is gone


@dataclass(frozen=True)
class Record:
    """One run. `settings` by dotted name; `results` as the summary holds them."""

    run: RunFolder
    status: Mapping[str, Any]
    settings: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def state(self) -> str:
        return self.status["state"]

    @property
    def reason(self) -> str | None:
        return self.status.get("reason") if self.state != DONE else None

    @cached_property
    def seed(self) -> Any:
        return self.settings.get("seed")


def find_records(paths: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The runs at and below `paths`, oldest first, and a line for each folder that looks like one and is none."""
    records, skipped = [], []
    for folder in find_folders(paths, skipped):
        try:
            records.append(read_record(RunFolder(folder)))
        except UserError as error:
            skipped.append(one_line(str(error)))
    return oldest_first(records), skipped


def oldest_first(records: Iterable[Record]) -> list[Record]:
    """A run folder is named by its time."""
    return sorted(records, key=lambda record: record.run.path.name)


def check_folder(path: Path) -> None:
    """Raises `UserError` unless there is a folder at `path`."""
    try:
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder; fsl train makes outputs/")
    except OSError as error:  # a name that is too long, or behind a door that is closed
        raise UserError(f"{path}: cannot be read ({error.strerror}); fsl train makes outputs/") from error


def is_endless(entry: os.DirEntry) -> bool:
    """Whether to read it could take for ever: a pipe waits for somebody to write. Files are told without a look."""
    return not entry.is_file() and Path(entry).exists() and not entry.is_dir()


def find_folders(paths: Sequence[Path], skipped: list[str]) -> list[Path]:
    """Folders that hold a config or a status, each once; nothing is looked for inside of them."""
    found: dict[str, Path] = {}
    for path in paths:
        check_folder(path)
        waiting = [(str(path), os.path.realpath(path))]  # links are not followed, so roots alone can name one twice
        while waiting:
            folder, real = waiting.pop()
            try:
                with os.scandir(folder) as listing:
                    inside = {entry.name: entry for entry in listing}
                endless = [name for name in READ if name in inside and is_endless(inside[name])]
                folders = [name for name, entry in inside.items() if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                skipped.append(one_line(f"{folder}: cannot be read ({error.strerror})"))
                continue
            if endless:
                skipped.append(one_line(f"{folder}{os.sep}{endless[0]}: is no file"))
            elif {CONFIG, STATUS} & inside.keys():
                found.setdefault(real, Path(folder))
            else:
                waiting += [(f"{folder}{os.sep}{name}", f"{real}{os.sep}{name}") for name in folders]
    return [folder for folder in found.values() if folder.name != EXPORT]  # which has a config as well


def read_record(run: RunFolder) -> Record:
    """Raises `UserError`, which names the file, where the folder is damaged or another program's."""
    status, summary = _read_status(run), run.read_summary()
    try:
        settings = parse_settings(run.config.read_text())
    except UNREADABLE as error:
        raise UserError(f"{run.config}: cannot be read ({error}); the run folder is damaged") from error
    if settings is None:
        raise UserError(f"{run.config}: holds no config; the run folder is damaged")
    if status["state"] == DONE and not os.path.lexists(run.summary):
        raise UserError(f"{run.summary}: is missing; the run folder is damaged")
    results = summary.get("results", [])
    if not are_results(results):
        raise UserError(f"{run.summary}: holds results that cannot be read; the run folder is damaged")
    return Record(run, status, settings, results)


def _read_status(run: RunFolder) -> dict[str, Any]:
    status = run.read_status()
    if not isinstance(status.get("state"), str):
        raise UserError(f"{run.status}: says no state; the run folder is damaged, or another program's")
    if not isinstance(status.get("reason"), str | None):
        raise UserError(f"{run.status}: gives a reason that is no text; the run folder is damaged")
    if status["state"] == RUNNING and run.is_abandoned():
        return {**status, "state": KILLED, "reason": f"its process is gone; fsl resume {run.quoted}"}
    return status


def are_results(value: Any) -> bool:
    """Whether these are the results of a run, of which there may be none."""
    return isinstance(value, list) and all(map(is_result, value))


def is_result(result: Any) -> bool:
    """Whether a result has what every comparison needs, and what it has besides is of the right kind."""
    try:
        named = all(isinstance(result[key], str) for key in ("name", "dataset", "split", "mode"))
        figures = is_number(figure_of(result)) and (result.get("ci95") is None or is_number(result["ci95"]))
        told = ("metric", "unit", "protocol", "images_hash", "files_hash")
        texts = all(isinstance(result.get(key), str | None) for key in told)
        return named and figures and texts and isinstance(result.get("episodes"), int | None)
    except (KeyError, TypeError, AttributeError):
        return False


def is_number(value: Any) -> bool:
    """A finite one; JSON knows NaN, and Python takes true for 1."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that is larger than any other
        return False
