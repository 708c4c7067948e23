"""Tables of many rows as lines of text: rich's own take two seconds for a thousand rows, these a tenth of one.

Where a table is wider than the terminal, some of its columns are told beneath their rows instead.
"""

import textwrap
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from fewshot_runner.report.line import one_line

GAP = "   "
INDENT = "    "


def grid(
    rows: Sequence[Mapping[str, str]],
    *,
    width: int,
    right: Sequence[str] = (),
    beneath: Sequence[str] = (),
    unnamed: Sequence[str] = (),
    styles: Mapping[int, str] | None = None,
) -> Text:
    """The rows under their keys, each cell in one line, those of `right` flush right; `styles` are of rows, by number.

    `beneath` are the columns that may move beneath their rows, in the order in which they do; those of `unnamed` say
    there by themselves what they are. What stands beneath is broken where it is wider than the terminal; the rows are
    not, so a very narrow terminal breaks them itself.
    """
    rows = [{name: one_line(cell) for name, cell in row.items()} for row in rows]
    widths = {name: max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in rows[0]}
    for name in beneath:
        if _width(widths) > width:
            del widths[name]
    moved = [name for name in rows[0] if name not in widths]
    text = Text(no_wrap=True, overflow="ignore")
    text.append(_line({name: name for name in widths}, widths, right) + "\n", style="bold")
    text.append("─" * _width(widths) + "\n", style="dim")
    for number, row in enumerate(rows):
        words = [row[name] if name in unnamed else f"{name}: {row[name]}" for name in moved if row[name]]
        lines = [_line(row, widths, right), *_broken("  ".join(words).split("  "), width)]
        text.append("\n".join(lines) + "\n", style=(styles or {}).get(number))
    return text


def heading(title: str, details: str, *, width: int) -> Text:
    """What stands above a table, in one line where that is wide enough."""
    title, details = one_line(title), one_line(details)
    fits = cell_len(f"{title}  {details}") <= width
    head = Text.assemble((title, "bold"))
    return head.append(f"  {details}" if fits else f"\n{textwrap.fill(details, width)}", "dim") if details else head


def _width(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _broken(words: Sequence[str], width: int) -> list[str]:
    """Indented lines of words, two spaces apart; a word, which may be a whole sentence, is broken if it has to be."""
    lines: list[str] = []
    for word in filter(None, words):
        if lines and cell_len(lines[-1]) + 2 + cell_len(word) <= width:
            lines[-1] += f"  {word}"
        else:
            room = max(width, 2 * len(INDENT))
            lines += textwrap.wrap(word, room, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)
    return lines


def _line(row: Mapping[str, str], widths: Mapping[str, int], right: Sequence[str]) -> str:
    cells = []
    for name, width in widths.items():
        cell = row[name]
        room = " " * (width - cell_len(cell))
        cells.append(room + cell if name in right else cell + room)
    return GAP.join(cells).rstrip()
