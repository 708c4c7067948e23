"""The result table of one run, from its summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fewshot_runner.report.line import as_markup
from fewshot_runner.runs import RunFolder

COLOURS = {"above": "green", "inside": "default", "below": "red"}


def result_table(run: RunFolder) -> Table:
    return results_table(run.read_summary()["results"], title=run.name)


def published_table(run: RunFolder) -> Table | None:
    """Published figures beside the run's own, or None where its config names none of its tests."""
    published = run.read_config().get("published")
    if not published:
        return None
    results = {result["name"]: result for result in reversed(run.read_summary()["results"])}  # its own come first
    table = Table(
        title=f"published: {as_markup(published['source'])}", title_justify="left", header_style="bold", box=SIMPLE_HEAD
    )
    table.add_column("test", no_wrap=True)
    for name in ("published", "ours"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ours lies", no_wrap=True)
    for name, figure in published["figures"].items():
        if name in results:
            verdict = beside(figure, results[name])
            table.add_row(
                as_markup(name), f"{100 * figure:.2f} %", f"[bold]{with_interval(results[name])}[/]",
                f"[{COLOURS[verdict]}]{verdict}[/]",
            )  # fmt: skip
    return table if table.row_count else None


def beside(published: float, result: Mapping[str, Any]) -> str:
    """Whether our interval lies "above" or "below" the published figure, or has it "inside"."""
    ours, half = figure_of(result), result["ci95"] or 0.0
    return "above" if ours - half > published else "below" if ours + half < published else "inside"


def figure_of(result: Mapping[str, Any]) -> float:
    """The figure that a result is named by: its accuracy, or its mean average precision."""
    return result[metric_of(result)]


def metric_of(result: Mapping[str, Any]) -> str:
    return result.get("metric", "accuracy")


def results_table(results: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """A row a result: no figure without its interval, the number of its tasks, and the seed that drew them."""
    table = Table(title=as_markup(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("test", no_wrap=True)
    table.add_column("data", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for name in ("figure", "error", "tasks", "seed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    for result in results:
        accuracy = metric_of(result) == "accuracy"
        count = result.get("tasks_count", result.get("episodes"))
        table.add_row(
            as_markup(result["name"]),
            as_markup(f"{result['dataset']} {result['split']}"),
            as_markup(metric_of(result)),
            f"[bold]{with_interval(result)}[/]",
            f"{100 * (1 - result['accuracy']):.2f} %" if accuracy else "",
            f"{count:,} {result.get('unit', 'episodes')}",
            "fixed" if result["episode_seed"] is None else str(result["episode_seed"]),
            as_markup(mode_of(result)),
        )
        for name, value in result.get("further", {}).items():
            table.add_row("", "", name, f"{value:.4f}", "", "", "", "")
    return table


def mode_of(result: Mapping[str, Any]) -> str:
    """What the method was allowed to see: batch norm's statistics, imbalanced queries, and images that are shown
    otherwise than in the run's own config, are said where they differ.
    """
    bn_mode = result.get("bn_mode", "running")
    mode = result["mode"] if bn_mode in ("running", "transductive") else f"{result['mode']}, bn {bn_mode}"
    shown = f", shown {result['shown']}" if result.get("shown") else ""
    return mode + ", imbalanced" * (result.get("imbalance") is not None) + shown


def with_interval(result: Mapping[str, Any]) -> str:
    return interval_text(figure_of(result), result["ci95"])


def interval_text(figure: float, ci95: float | None) -> str:
    """ "97.31 ± 0.08 %": the half-width of the 95 % interval over tasks, where there is more than one."""
    interval = "" if ci95 is None else f" ± {100 * ci95:.2f}"
    return f"{100 * figure:.2f}{interval} %"
