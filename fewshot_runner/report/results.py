"""The result table of one run, from its summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewshot_runner.runs import RunFolder


def result_table(run: RunFolder) -> Table:
    return results_table(run.read_summary()["results"], title=run.name)


def results_table(results: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """A row a result: no accuracy without its interval, number of episodes and seed."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("test", no_wrap=True)
    table.add_column("data", no_wrap=True)
    for name in ("accuracy", "error", "episodes", "seed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    for result in results:
        table.add_row(
            escape(result["name"]),
            escape(f"{result['dataset']} {result['split']}"),
            f"[bold]{with_interval(result)}[/]",
            f"{100 * (1 - result['accuracy']):.2f} %",
            f"{result['episodes']:,}",
            "fixed" if result["episode_seed"] is None else str(result["episode_seed"]),
            result["mode"],
        )
    return table


def with_interval(result: Mapping[str, Any]) -> str:
    """ "97.31 ± 0.08 %": the half-width of the 95 % interval over episodes, where there is more than one."""
    interval = "" if result["ci95"] is None else f" ± {100 * result['ci95']:.2f}"
    return f"{100 * result['accuracy']:.2f}{interval} %"
