"""Tables of many rows as lines of text: rich's own take two seconds for a thousand rows, these a tenth of one.

One column may be a list of words, which is given the width that the others leave and broken between words.
"""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

GAP = "   "
NARROWEST = 24  # of the column of words


def grid(
    rows: Sequence[Mapping[str, str]],
    *,
    width: int,
    right: Sequence[str] = (),
    words: str | None = None,
    bold: Sequence[int] = (),
) -> Text:
    """The rows under their keys, those of `right` flush right; `bold` are numbers of rows.

    `words` is the column that is broken into lines; nothing else is, so a narrow terminal breaks the lines itself.
    """
    columns = list(rows[0])
    widths = {name: max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in columns}
    if words is not None:
        others = sum(widths.values()) - widths[words] + len(GAP) * (len(columns) - 1)
        widths[words] = max(min(widths[words], width - others), NARROWEST, _longest_word(rows, words))
    text = Text(no_wrap=True, overflow="ignore")
    header = {name: name for name in columns}
    text.append(_line(header, widths, right) + "\n", style="bold")
    text.append("─" * (sum(widths.values()) + len(GAP) * (len(columns) - 1)) + "\n", style="dim")
    for number, row in enumerate(rows):
        lines = [row] if words is None else _broken(row, words, widths[words])
        said = "".join(_line(line, widths, right) + "\n" for line in lines)
        text.append(said, style="bold" if number in bold else None)
    return text


def _longest_word(rows: Sequence[Mapping[str, str]], column: str) -> int:
    return max((cell_len(word) for row in rows for word in [column, *row[column].split("  ")]), default=0)


def _broken(row: Mapping[str, str], column: str, width: int) -> list[dict[str, str]]:
    """Further lines hold nothing but words."""
    lines = [""]
    for word in row[column].split("  "):
        longer = f"{lines[-1]}  {word}" if lines[-1] else word
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    nothing = dict.fromkeys(row, "")
    return [{**(row if number == 0 else nothing), column: line} for number, line in enumerate(lines)]


def _line(row: Mapping[str, str], widths: Mapping[str, int], right: Sequence[str]) -> str:
    cells = []
    for name, width in widths.items():
        cell = row[name]
        room = " " * (width - cell_len(cell))
        cells.append(room + cell if name in right else cell + room)
    return GAP.join(cells).rstrip()
