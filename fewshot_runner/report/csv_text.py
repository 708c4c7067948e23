"""Rows for other programs, as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_runner.report.line import encodable


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a row under the columns of all of them; what a row does not have stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return encodable(text.getvalue())
