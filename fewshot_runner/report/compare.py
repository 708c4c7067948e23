"""Runs side by side: the settings in which they differ, and their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewshot_runner.errors import UserError
from fewshot_runner.report.config import flatten
from fewshot_runner.report.results import figure_of, with_interval
from fewshot_runner.runs import DONE, RunFolder

# Shown in columns of their own, or no matter of an experiment.
NOT_COMPARED = ("output_dir", "trusted_packages", "dataset.cache", "dataset.root")


def find_runs(paths: Sequence[Path]) -> tuple[list[RunFolder], list[str]]:
    """The run folders at and below `paths`, oldest first, and a line for each folder that is a damaged one."""
    runs, skipped = [], []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder; fsl train makes outputs/")
        for config in sorted(path.rglob("config.yaml"), key=lambda found: found.parent.name):
            if config.parent.name == "export":
                continue
            run = RunFolder(config.parent)
            try:
                run.read_status(), run.read_summary(), flatten(run.read_config())
            except UserError as error:
                skipped.append(str(error))
            else:
                runs.append(run)
    return runs, skipped


def rows_of(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """A row a run: its folder, state, the settings that are not the same in all runs, and its results."""
    settings = [flatten(run.read_config()) for run in runs]
    names = list(dict.fromkeys(name for each in settings for name in each if not name.startswith(NOT_COMPARED)))
    differing = [name for name in names if len({str(each.get(name)) for each in settings}) > 1]
    choices = [name for name in differing if name.startswith("choices.")]
    # what a choice of a group brings with it is told by the choice
    chosen = tuple(f"{name.removeprefix('choices.')}." for name in choices)
    shown = choices + [name for name in differing if name not in choices and not name.startswith(chosen)]
    rows = []
    for run, each in zip(runs, settings, strict=True):
        status, summary = run.read_status(), run.read_summary()
        row: dict[str, Any] = {"run": str(run.path), "state": status["state"]}
        row |= {name.removeprefix("choices."): each.get(name) for name in shown}
        for result in summary["results"]:
            row[f"{result['dataset']} {result['split']} {result['name']}"] = figure_of(result)
            row[f"{result['dataset']} {result['split']} {result['name']} ci95"] = result["ci95"]
        row["seconds"] = status.get("seconds")
        if status["state"] != DONE and status.get("reason"):
            row["reason"] = status["reason"]
        rows.append(row)
    return rows


def compare_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if not c.endswith(" ci95") and c != "reason"]
    for column in columns:
        measured = any(f"{column} ci95" in row for row in rows)
        table.add_column(column, justify="right" if measured or column == "seconds" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(row, column)) for column in columns))
    return table


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        return "-"
    if f"{column} ci95" in row:
        return with_interval({"accuracy": value, "ci95": row[f"{column} ci95"]})
    if column == "state" and "reason" in row:
        return f"{value}: {row['reason']}"
    if column == "run":
        return "/".join(Path(value).parts[-2:])
    return f"{value:.0f}" if column == "seconds" else str(value)
