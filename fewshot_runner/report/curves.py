"""Learning curves from the logged steps of runs."""

from collections.abc import Iterator, Mapping, Sequence

from fewshot_runner.errors import UserError
from fewshot_runner.report.charts import Line, line_chart
from fewshot_runner.report.groups import Group
from fewshot_runner.report.html import tag, text
from fewshot_runner.report.records import is_number

PHASES = {"val": "validation", "train": "training"}
SHARES = ("accuracy", "map_at", "recall_at", "auc")
NOT_LEARNT = ("learning_rate", "momentum", "threshold")


def curves(groups: Mapping[int, Group], labels: Mapping[int, str], skipped: list[str]) -> str:
    """A chart for each figure, a line a run; `groups` and `labels` by the number that gives them their colour."""
    charts: dict[tuple[str, str], list[Line]] = {}
    for number, group in groups.items():
        for record in group.records:
            try:
                logged = record.run.read_metrics()
            except UserError as error:
                skipped.append(str(error))
                continue
            seed = f", seed {record.seed}" if len(group.records) > 1 else ""
            for key, points in series(logged).items():
                charts.setdefault(key, []).append(Line(f"{labels[number]}{seed}", number, points))
    figures = []
    for (phase, name), lines in sorted(charts.items(), key=lambda item: (item[0][0] != "val", item[0][1])):
        percent = name.startswith(SHARES)
        chart = line_chart(lines, x_title="step", y_title=f"{PHASES[phase]} {name}", percent=percent)
        if chart:
            caption = tag("figcaption", text(f"{PHASES[phase]} {name}"))
            figures.append(tag("figure", caption, chart, css="card"))
    return tag("div", *figures, css="charts")


def series(logged: Sequence[Mapping]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """The points (step, value) of every figure by phase and name."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for phase, name, step, value in _figures(logged):
        found.setdefault((phase, name), []).append((step, value))
    return found


def _figures(logged: Sequence[Mapping]) -> Iterator[tuple[str, str, float, float]]:
    for line in logged:
        for phase in PHASES:
            figures = line.get(phase) if isinstance(line, Mapping) else None
            if isinstance(figures, Mapping) and is_number(line.get("step")):
                for name, value in figures.items():
                    if name not in NOT_LEARNT and is_number(value):
                        yield phase, name, line["step"], value
