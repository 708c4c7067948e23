"""The ranked answers to pictures as a table, in the form of Kaggle's identification challenges as far as it can hold
them.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path


def submission(answers: Mapping[str, Sequence[str]]) -> str:
    """CSV with the columns Image and Id, the ids best first and blanks between them.

    Where an id has white space itself, it could not be told from two: there is a column for each rank instead, which
    are Id 1, Id 2 and so on. A picture is called as its file is, or where another file is called so too, all of them
    by their names in the data set.
    """
    names = [Path(image).name for image in answers]
    if len(set(names)) < len(names):
        names = list(answers)
    header, rows = ["Image", "Id"], [[" ".join(ranked)] for ranked in answers.values()]
    if any(name.split() != [name] for ranked in answers.values() for name in ranked):
        rows = [list(ranked) for ranked in answers.values()]
        header = ["Image", *(f"Id {rank}" for rank in range(1, max(map(len, rows)) + 1))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([name, *row] for name, row in zip(names, rows, strict=True))
    return text.getvalue()
