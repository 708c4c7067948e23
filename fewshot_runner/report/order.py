"""Rows in another order than that of their results."""

from typing import Any

from fewshot_runner.report.cells import mean_seconds
from fewshot_runner.report.ranking import Ranking, Row
from fewshot_runner.report.settings import CHOICES


def sorted_rows(ranking: Ranking, key: str) -> list[Row]:
    """The rows by a setting, or a figure of theirs, smallest first; what has none comes last."""
    return sorted(ranking.rows, key=lambda row: order_of(value_of(row, key)))


def value_of(row: Row, key: str) -> Any:
    difference, settings = row.difference, row.group.records[0].settings
    figures = {
        "result": row.mean,
        "run": row.group.name,
        "seconds": mean_seconds(row),
        "difference": None if difference is None else difference.mean,
        "p": None if difference is None else difference.p,
    }
    return figures[key] if key in figures else settings.get(key, settings.get(f"{CHOICES}{key}"))


def order_of(value: Any) -> tuple[int, float, str]:
    """Numbers before texts before nothing."""
    if value is None:
        return (2, 0.0, "")
    return (0, value, "") if isinstance(value, int | float) else (1, 0.0, str(value))
