"""The table of a sweep, from its manifest: the best result first, failures last and by name."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from fewshot_runner.report.grid import grid, heading
from fewshot_runner.report.line import one_line
from fewshot_runner.report.measured import names_apart, test_of
from fewshot_runner.report.results import figure_of, with_interval
from fewshot_runner.runs import DONE, FAILED

STATE = "state"  # of a job that is not done, and why
MEASURED = "measured over"  # no column: told above the table where all results have it in common, else below it
FURTHER = (STATE, "run", "seconds", "validation", "test")  # what a narrow table tells beneath its rows, in this order


def sweep_table(jobs: Sequence[Mapping[str, Any]], *, swept: Sequence[str], title: str, width: int) -> Text:
    """A row a job; `swept` are the keys that get a column. Jobs of different tests are ranked each among their own."""
    keys = [key.lstrip("+") for key in swept]
    jobs = ranked(jobs)
    tests = {test_key(job): test_of(job["result"]) for job in jobs if job.get("result")}
    names = names_apart(list(tests.values()))
    every = [{"job": str(number_of(job)), **settings_of(job, keys), **cells(job, names)} for job in jobs]
    if not every:
        return heading(title, "", width=width)
    told = ("test", MEASURED)
    common = {name: said.pop() for name in told if len(said := {row[name] for row in every if row[name]}) == 1}
    left_out = {name for name in every[0] if name not in keys and not any(row[name] for row in every)}
    left_out |= {*common, MEASURED}
    head = heading(title, ", ".join(common.values()), width=width)
    rows = [{name: value for name, value in row.items() if name not in left_out} for row in every]
    table = grid(
        rows,
        width=width,
        right=["job", "result", "validation", "seconds"],
        beneath=[name for name in (*FURTHER, *keys) if name in rows[0]],
        unnamed=[STATE],
        styles={number: colour for number, job in enumerate(jobs) if (colour := colour_of(job))},
    )
    below = [] if MEASURED in common else [textwrap.fill(one_line(line), width) for line in measures(every)]
    return Text("\n").join([head, table, *(Text(line, style="dim") for line in below)])


def number_of(job: Mapping[str, Any]) -> int:
    """By which people are told of a job: from 1, where its manifest counts from 0."""
    return job["number"] + 1


def measures(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What the results of each test were measured over, and of which jobs where that differs within a test."""
    jobs: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["test"]:
            jobs.setdefault((row["test"], row[MEASURED]), []).append(row["job"])
    times = Counter(test for test, _ in jobs)
    which = {test: f" (job {', '.join(of)})" if times[test[0]] > 1 else "" for test, of in jobs.items()}
    return [f"{test}{said}: {measured}" for (test, measured), said in which.items()]


def cells(job: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """What stands behind the settings of a job; `names` are those of the tests, by their keys."""
    result, done = job.get("result"), job["state"] == DONE
    test = test_of(result) if result else None
    metric = "" if test is None or test.metric == "accuracy" else f" {test.metric}"
    reason = f": {job['reason'].splitlines()[0]}" if job.get("reason") else ""
    return {
        "test": names[test.key] + metric if test else "",
        MEASURED: ", ".join(test.measured_over(result.get("tasks_count", result.get("episodes")))) if test else "",
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
    return test_of(job["result"]).key


def settings_of(job: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    settings = dict(override.lstrip("+").partition("=")[::2] for override in job["overrides"])
    return {key: settings.get(key, "") for key in keys}


def colour_of(job: Mapping[str, Any]) -> str | None:
    return {DONE: None, FAILED: "red"}.get(job["state"], "yellow")
