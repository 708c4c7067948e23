"""Predictions as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from fewshot_runner.report.grid import grid


def prediction_table(predictions: Sequence[Mapping[str, Any]], *, width: int) -> Text:
    """A row a picture: the best class with its score, then the runners-up, beneath it where there is no room."""
    ranks = range(max(len(prediction["ranking"]) for prediction in predictions))
    names = ["prediction", *(f"{rank + 1}." for rank in ranks[1:])]
    rows = []
    for prediction in predictions:
        answers = [f"{entry['class']} {100 * entry['score']:.1f} %" for entry in prediction["ranking"]]
        rows.append({"image": prediction["image"], **dict(zip(names, answers, strict=True))})
    return grid(rows, width=width, beneath=[*names[:0:-1], names[0]])
