"""A comparison for other programs: a row a run, all its figures under names of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_runner.report.measured import names_apart
from fewshot_runner.report.ranking import Ranking, Row, results_by_test
from fewshot_runner.report.records import Record
from fewshot_runner.report.results import figure_of
from fewshot_runner.report.settings import differing, short


def flat_rows(rankings: Sequence[Ranking], records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row a run: folder, state, the settings that are not the same in all runs, and under the name of each test its
    figures and those of its experiment (all seeds).

    In the order of the rankings, and behind them the runs that stand in none.
    """
    settings = differing([record.settings for record in records])
    names = names_apart([test for ranking in rankings for test in ranking.tests])
    rows: dict[int, dict[str, Any]] = {}
    ranked = [record for ranking in rankings for row in ranking.rows for record in row.group.records]
    for record in [*ranked, *records]:  # a run that comes again keeps its place
        row: dict[str, Any] = {"run": str(record.run.path), "state": record.state}
        rows[id(record)] = row | {short(name): record.settings.get(name) for name in settings}
    for ranking in rankings:
        for row in ranking.rows:
            shared = flat_comparison(row, ranking, names[row.test.key])
            for record, result in zip(row.group.records, row.results, strict=True):
                rows[id(record)] |= flat_figures(result, names[row.test.key]) | shared
            for record in row.group.repeats:  # which have figures of their own, and no part in the comparison
                if (answer := results_by_test(record.results).get(row.test.key)) is not None:
                    rows[id(record)] |= flat_figures(answer[1], names[row.test.key])
    for record in records:
        rows[id(record)]["seconds"] = record.status.get("seconds")
        if record.reason:
            rows[id(record)]["reason"] = record.reason
    return list(rows.values())


def flat_figures(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name: figure_of(result), f"{name} ci95": result.get("ci95")}


def flat_comparison(row: Row, ranking: Ranking, name: str) -> dict[str, Any]:
    """What is known of an experiment beyond its single runs."""
    flat: dict[str, Any] = {f"{name} tasks": row.n_tasks}
    if len(row.results) > 1:
        flat |= {
            f"{name} seeds": len(row.results),
            f"{name} mean": row.mean,
            f"{name} mean ci95 over tasks": row.ci95,
            f"{name} mean ci95 over seeds": row.ci95_seeds,
            f"{name} sd over seeds": row.sd_seeds,
        }
    if ranking.forced:
        flat[f"{name} forced"] = True
    if (difference := row.difference) is not None:
        flat |= {
            f"{name} compared with": str(ranking.reference.group.records[0].run.path),
            f"{name} paired": difference.paired,
            f"{name} difference": difference.mean,
            f"{name} difference ci95": difference.ci95,
            f"{name} p": difference.p,
            f"{name} p holm": difference.p_holm,
            f"{name} more tasks": difference.more_tasks,
            f"{name} more seeds": difference.more_seeds,
        }
    return flat
