"""A CSV file with a header, row by row, with errors that name the line."""

import csv
import difflib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fewshot_runner.errors import UserError

_DELIMITERS = ",;\t"
_OPTIONAL = ("split_column", "group_column")


def read_table(content: bytes, path: str, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line number and the cells of each row that is not blank; of a cell of several lines, the last line counts.

    `content` is the file's, and messages call it `path`. `columns` maps the keys of the result to column names, as the
    user set them. The file is UTF-8; of comma, semicolon and tab, the delimiter under which the header has most of
    these columns. Cells lose surrounding blanks, and cells that a row lacks are "". Raises `UserError` for other
    encodings, broken quotes, rows of too many cells, and columns that are missing or ambiguous.
    """
    text = _text(content, path)
    header, delimiter = _header(path, text, columns)
    places = {key: _place(path, header, key, column) for key, column in columns.items()}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        next(reader)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if any(cells[len(header) :]):
                raise UserError(
                    f"{path}: line {reader.line_num} has {len(cells)} cells where the header has {len(header)}; "
                    f"put quotes around cells that contain {delimiter!r}"
                )
            cells += [""] * (len(header) - len(cells))
            yield reader.line_num, {key: cells[place] for key, place in places.items()}
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is broken ({error}); mend its quotes") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """A remark on the known name most like `name`, to follow it in a message; "" where none is like it."""
    folded = {other.casefold(): other for other in sorted(known, reverse=True)}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" (the nearest name is {folded[near[0]]!r})" if near else ""


def _text(content: bytes, path: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file as CSV UTF-8") from error
    if not text.strip():
        raise UserError(f"{path} is empty; it needs a header and one row an image")
    return text


def _header(path: str, text: str, columns: Mapping[str, str]) -> tuple[list[str], str]:
    """The column names and the delimiter that finds most of `columns`, or else most names, in the first row."""
    headers = []
    for delimiter in _DELIMITERS:
        try:
            row = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        except csv.Error as error:
            raise UserError(f"{path}: the header is broken ({error}); give a CSV file") from error
        headers.append(([name.strip() for name in row], delimiter))
    return max(headers, key=lambda found: (len(set(found[0]) & set(columns.values())), len(found[0])))


def _place(path: str, header: Sequence[str], key: str, column: str) -> int:
    if header.count(column) == 1:
        return header.index(column)
    if column in header:
        raise UserError(f"{path}: two columns are called {column!r}; rename one of them")
    if len(header) == 1:
        raise UserError(
            f"{path}: dataset.{key}={column} is no column: the header is one column, {header[0]!r}; "
            "separate columns by commas, semicolons or tabs"
        )
    none = ", or to null where there is none" if key in _OPTIONAL else ""
    raise UserError(
        f"{path}: dataset.{key}={column} is no column{nearest(column, header)}; set dataset.{key} to one of: "
        f"{', '.join(header)}{none}"
    )
