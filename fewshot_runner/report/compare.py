"""Runs side by side: the settings in which they differ, and their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewshot_runner.errors import UserError
from fewshot_runner.report.results import with_interval
from fewshot_runner.runs import DONE, RunFolder

# Shown in columns of their own, or no matter of an experiment.
NOT_COMPARED = ("output_dir", "trusted_packages", "dataset.cache", "dataset.root")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
                run.read_status(), run.read_summary(), read_settings(run)
            except UserError as error:
                skipped.append(str(error))
            else:
                runs.append(run)
    return runs, skipped


def read_settings(run: RunFolder) -> dict[str, Any]:
    """The run's config, flat."""
    try:
        content = yaml.load(run.config.read_text(), Loader=LOADER)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{run.config}: cannot be read; the run folder is damaged") from error
    if not isinstance(content, dict):
        raise UserError(f"{run.config}: holds no config; the run folder is damaged")
    return dict(_flat(content, ""))


def rows_of(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """A row a run: its folder, state, the settings that are not the same in all runs, and its results."""
    settings = [read_settings(run) for run in runs]
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
            row[f"{result['dataset']} {result['split']} {result['name']}"] = result["accuracy"]
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
        cells = []
        for column in columns:
            value = row.get(column)
            if f"{column} ci95" in row:
                cells.append(with_interval({"accuracy": value, "ci95": row[f"{column} ci95"]}))
            elif column == "state" and "reason" in row:
                cells.append(f"{value}: {row['reason']}")
            elif column == "run":
                cells.append("/".join(Path(value).parts[-2:]))
            else:
                cells.append(
                    "-"
                    if value is None
                    else f"{value:.0f}"
                    if isinstance(value, float) and column == "seconds"
                    else str(value)
                )
        table.add_row(*map(escape, cells))
    return table


def _flat(content: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    pairs = []
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
