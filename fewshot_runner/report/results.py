"""The tables of one run, from its summary: its results, and what others have published beside them."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from fewshot_runner.report.grid import grid
from fewshot_runner.report.line import one_line
from fewshot_runner.runs import RunFolder

FIXED = "fixed"  # tasks that no seed has drawn
COLOURS = {"above": "green", "inside": "", "below": "red"}


def result_table(run: RunFolder, *, width: int) -> Text:
    return results_table(run.read_summary()["results"], title=run.name, width=width)


def published_table(run: RunFolder, *, width: int) -> Text | None:
    """Published figures beside the run's own, or None where its config names none of its tests.

    A result on other data, or under another split or mode, is no counterpart of a published figure, nor is validation.
    """
    published = run.read_config().get("published")
    if not published:
        return None
    results = {
        result["name"]: result
        for result in reversed(run.read_summary()["results"])  # its own come first
        if is_counterpart(result, published)
    }
    rows = [
        {
            "test": name,
            "published": f"{100 * figure:.2f} %",
            "ours": with_interval(results[name]),
            "ours lies": beside(figure, results[name]),
        }
        for name, figure in published["figures"].items()
        if name in results
    ]
    if not rows:
        return None
    styles = {number: COLOURS[row["ours lies"]] for number, row in enumerate(rows)}
    table = grid(rows, width=width, right=["published", "ours"], beneath=["ours lies"], styles=styles)
    return Text.assemble((textwrap.fill(one_line(f"published: {published['source']}"), width), "bold"), "\n", table)


def is_counterpart(result: Mapping[str, Any], published: Mapping[str, Any]) -> bool:
    """Whether a published figure of this test may stand beside the result."""
    meant = all(result[key] in published[key] for key in ("dataset", "split") if published.get(key))
    mode = "transductive" if result["name"].endswith("_transductive") else "inductive"
    return meant and result["mode"] == mode and result.get("part") != "val"


def beside(published: float, result: Mapping[str, Any]) -> str:
    """Whether our interval lies "above" or "below" the published figure, or has it "inside"."""
    ours, half = figure_of(result), result["ci95"] or 0.0
    return "above" if ours - half > published else "below" if ours + half < published else "inside"


def figure_of(result: Mapping[str, Any]) -> float:
    """The figure that a result is named by: its accuracy, or its mean average precision."""
    return result[metric_of(result)]


def metric_of(result: Mapping[str, Any]) -> str:
    return result.get("metric", "accuracy")


def results_table(results: Sequence[Mapping[str, Any]], *, title: str, width: int) -> Text:
    """A row a result: no figure without its interval, the number of its tasks, and the seed that drew them.

    What is the same for all of them stands above the table, or as a metric at the head of the figures.
    """
    if not results:
        return Text(f"{one_line(title)}: no results")
    told = [result_cells(result) for result in results]
    rows: list[dict[str, str]] = []
    for result, row in zip(results, told, strict=True):
        further = result.get("further", {}).items()
        rows += [row, *({"metric": name, "figure": f"{value:.4f}"} for name, value in further)]
    common = {name: told[0][name] for name in ("data", "mode", "drawn") if len({row[name] for row in told}) == 1}
    if drawn := common.get("drawn"):
        common["drawn"] = "fixed tasks" if drawn == FIXED else f"tasks drawn {drawn}"
    metrics = {row["metric"] for row in rows}
    figure = metrics.pop() if len(metrics) == 1 else "figure"
    hidden = {*common, *(["metric"] if figure != "figure" else [])}
    names = [name for name in told[0] if name not in hidden and any(row[name] for row in told)]
    table = grid(
        [{figure if name == "figure" else name: row.get(name, "") for name in names} for row in rows],
        width=width,
        right=[figure, "error", "tasks"],
        beneath=[name for name in ("mode", "data", "drawn", "error", "tasks") if name in names],
    )
    heading = textwrap.fill(one_line(", ".join(common.values())), width)
    return Text.assemble((one_line(title), "bold"), "\n", (f"{heading}\n" if heading else "", "dim"), table)


def result_cells(result: Mapping[str, Any]) -> dict[str, str]:
    count = result.get("tasks_count", result.get("episodes"))
    return {
        "test": result["name"],
        "data": f"{result['dataset']} {result['split']}",
        "metric": metric_of(result),
        "figure": with_interval(result),
        "error": f"{100 * (1 - result['accuracy']):.2f} %" if metric_of(result) == "accuracy" else "",
        "tasks": f"{count:,} {result.get('unit', 'episodes')}",
        "drawn": FIXED if result["episode_seed"] is None else f"by seed {result['episode_seed']}",
        "mode": mode_of(result),
    }


def mode_of(result: Mapping[str, Any]) -> str:
    """What the method was allowed to see: batch norm's statistics, imbalanced queries, images that are shown and a
    precision that is otherwise than in the run's own config, are said where they differ; validation, which has chosen
    the weights and fitted a threshold, where it stands in for a test without labels; and test images that copy others.
    """
    bn_mode = result.get("bn_mode", "running")
    mode = result["mode"] if bn_mode in ("running", "transductive") else f"{result['mode']}, bn {bn_mode}"
    shown = f", shown {result['shown']}" if result.get("shown") else ""
    precision = f", {result['precision']}" if result.get("precision") else ""
    part = ", on validation, which chose the weights" * (result.get("part") == "val")
    if part and result.get("unknown"):
        part += f" and the similarity of {result['unknown']}"
    copies = f", {result['copies']} test images seen in training or validation" if result.get("copies") else ""
    return mode + ", imbalanced" * (result.get("imbalance") is not None) + part + copies + shown + precision


def with_interval(result: Mapping[str, Any]) -> str:
    return interval_text(figure_of(result), result["ci95"])


def interval_text(figure: float, ci95: float | None) -> str:
    """ "97.31 ± 0.08 %": the half-width of the 95 % interval over tasks, where there is more than one."""
    interval = "" if ci95 is None else f" ± {100 * ci95:.2f}"
    return f"{100 * figure:.2f}{interval} %"
