"""The table of a sweep, from its manifest: the best result first, failures last and by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewshot_runner.report.results import figure_of, metric_of, with_interval
from fewshot_runner.runs import DONE, FAILED


def sweep_table(jobs: Sequence[Mapping[str, Any]], *, swept: Sequence[str], title: str) -> Table:
    """A row a job; `swept` are the keys that get a column. Jobs of different tests are ranked each among their own."""
    table = Table(title=escape(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("job", justify="right", no_wrap=True)
    for key in swept:
        table.add_column(escape(key), overflow="fold")
    table.add_column("test", no_wrap=True)
    for name in ("result", "validation", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("run, or why not", overflow="fold")
    for job in ranked(jobs):
        settings = settings_of(job)
        done, result = job["state"] == DONE, job.get("result")
        table.add_row(
            str(job["number"]),
            *(escape(settings.get(key, "")) for key in swept),
            escape(test_of(job)) if result else "",
            f"[bold]{with_interval(result)}[/]" if result else "",
            "" if job.get("validation") is None else f"{job['validation']:.4f}",
            "" if job.get("seconds") is None else f"{job['seconds']:.0f}",
            escape("/".join(job["run"].split("/")[-2:])) if done else failure(job),
        )
    return table


def ranked(jobs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Finished jobs with the highest figure first, test by test in the order of the jobs; then others, failed last."""
    finished = [job for job in jobs if job.get("result")]
    tests = list(dict.fromkeys(test_of(job) for job in finished))
    finished.sort(key=lambda job: (tests.index(test_of(job)), -figure_of(job["result"])))
    others = [job for job in jobs if not job.get("result")]
    return finished + sorted(others, key=lambda job: job["state"] == FAILED)


def test_of(job: Mapping[str, Any]) -> str:
    """What was asked of a job; figures of different tests do not compare."""
    result = job["result"]
    mode = "" if result.get("mode") in (None, "inductive") else f" {result['mode']}"
    metric = "" if metric_of(result) == "accuracy" else f" {metric_of(result)}"
    return f"{result['name']} {result['dataset']} {result['split']}{mode}{metric}"


def settings_of(job: Mapping[str, Any]) -> dict[str, str]:
    return dict(override.lstrip("+").partition("=")[::2] for override in job["overrides"])


def failure(job: Mapping[str, Any]) -> str:
    colour = "red" if job["state"] == FAILED else "yellow"
    reason = f": {job['reason'].splitlines()[0]}" if job.get("reason") else ""
    return f"[{colour}]{escape(job['state'] + reason)}[/]"
