"""Predictions as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fewshot_runner.report.line import as_markup


def prediction_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """A row a picture: the best class with its score, then the runners-up."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    table.add_column("image", overflow="fold")
    for rank in range(max(len(prediction["ranking"]) for prediction in predictions)):
        table.add_column(f"{rank + 1}." if rank else "prediction")
    for prediction in predictions:
        best, *others = (f"{as_markup(entry['class'])} {100 * entry['score']:.1f} %" for entry in prediction["ranking"])
        table.add_row(
            as_markup(prediction["image"]), f"[bold green]{best}[/]", *(f"[dim]{other}[/]" for other in others)
        )
    return table
