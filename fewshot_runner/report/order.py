"""Rows in another order than that of their results."""

from collections.abc import Callable
from typing import Any

from fewshot_runner.report.cells import mean_seconds
from fewshot_runner.report.ranking import Ranking, Row
from fewshot_runner.report.settings import CHOICES

FIGURES: dict[str, Callable[[Row], Any]] = {
    "result": lambda row: row.mean,
    "difference": lambda row: None if row.difference is None else row.difference.mean,
    "p": lambda row: None if row.difference is None else row.difference.p,
    "seconds": mean_seconds,
    "run": lambda row: row.group.name,
}


def sorted_rows(ranking: Ranking, key: str, *, reverse: bool = False) -> list[Row]:
    """The rows by a setting, or a figure of theirs, smallest first, or largest; what has none comes last either way."""
    values = {id(row): value_of(row, key) for row in ranking.rows}
    having = [row for row in ranking.rows if values[id(row)] is not None]
    lacking = [row for row in ranking.rows if values[id(row)] is None]
    return sorted(having, key=lambda row: order_of(values[id(row)]), reverse=reverse) + lacking


def value_of(row: Row, key: str) -> Any:
    if key in FIGURES:
        return FIGURES[key](row)
    settings = row.group.records[0].settings
    return settings.get(key, settings.get(f"{CHOICES}{key}"))


def order_of(value: Any) -> tuple[int, float, str]:
    """Numbers before texts."""
    return (0, value, "") if isinstance(value, int | float) else (1, 0.0, str(value))
