"""The table of a sweep, from its manifest: the best result first, failures last and by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from fewshot_runner.report.console import output
from fewshot_runner.report.grid import grid
from fewshot_runner.report.results import figure_of, metric_of, with_interval
from fewshot_runner.runs import DONE, FAILED

STATE = "state"  # of a job that is not done, and why
FURTHER = (STATE, "run", "seconds", "validation", "test")  # what a narrow table tells beneath its rows, in this order


def sweep_table(
    jobs: Sequence[Mapping[str, Any]], *, swept: Sequence[str], title: str, width: int | None = None
) -> Text:
    """A row a job; `swept` are the keys that get a column. Jobs of different tests are ranked each among their own.

    As wide as the output unless `width` is given.
    """
    width = output().width if width is None else width
    keys = [key.lstrip("+") for key in swept]
    jobs = ranked(jobs)
    every = [{"job": str(job["number"]), **settings_of(job, keys), **cells(job)} for job in jobs]
    head = Text.assemble((title, "bold"))
    if not every:
        return head
    left_out = {name for name in every[0] if name not in keys and not any(row[name] for row in every)}
    if len(tests := {row["test"] for row in every if row["test"]}) == 1:
        [test] = tests
        head.append("  " if cell_len(f"{title}  {test}") <= width else "\n").append(test, style="dim")
        left_out.add("test")
    rows = [{name: value for name, value in row.items() if name not in left_out} for row in every]
    table = grid(
        rows,
        width=width,
        right=["job", "result", "validation", "seconds"],
        beneath=[name for name in (*FURTHER, *keys) if name in rows[0]],
        unnamed=[STATE],
        styles={number: colour for number, job in enumerate(jobs) if (colour := colour_of(job))},
    )
    return head.append("\n").append(table)


def cells(job: Mapping[str, Any]) -> dict[str, str]:
    """What stands behind the settings of a job."""
    result, done = job.get("result"), job["state"] == DONE
    reason = f": {job['reason'].splitlines()[0]}" if job.get("reason") else ""
    return {
        "test": test_title(job) if result else "",
        "result": with_interval(result) if result else "",
        "validation": "" if job.get("validation") is None else f"{job['validation']:.4f}",
        "seconds": "" if job.get("seconds") is None else f"{job['seconds']:.0f}",
        "run": "/".join(job["run"].split("/")[-2:]) if done else "",
        STATE: "" if done else job["state"] + reason,
    }


def ranked(jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Finished jobs with the highest figure first, test by test in the order of the jobs; then others, failed last."""
    finished = [job for job in jobs if job.get("result")]
    tests = list(dict.fromkeys(map(test_key, finished)))
    finished.sort(key=lambda job: (tests.index(test_key(job)), -figure_of(job["result"])))
    others = [job for job in jobs if not job.get("result")]
    return finished + sorted(others, key=lambda job: job["state"] == FAILED)


def test_key(job: Mapping[str, Any]) -> str:
    """The test that a job's result is of: others are drawn otherwise, and figures of different tests do not compare."""
    return job["result"].get("test") or test_title(job)


def test_title(job: Mapping[str, Any]) -> str:
    """What was asked of a job, in short."""
    result = job["result"]
    mode = "" if result.get("mode") in (None, "inductive") else f" {result['mode']}"
    metric = "" if metric_of(result) == "accuracy" else f" {metric_of(result)}"
    return f"{result['name']} {result['dataset']} {result['split']}{mode}{metric}"


def settings_of(job: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    settings = dict(override.lstrip("+").partition("=")[::2] for override in job["overrides"])
    return {key: settings.get(key, "") for key in keys}


def colour_of(job: Mapping[str, Any]) -> str | None:
    return {DONE: None, FAILED: "red"}.get(job["state"], "yellow")
