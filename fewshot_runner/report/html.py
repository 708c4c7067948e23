"""Pieces of HTML. Whatever comes from a run is user text: it goes through `text`, and nowhere else."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape


def text(value: object) -> str:
    return escape(str(value))


def tag(name: str, *inside: str, **attributes: str) -> str:
    """`inside` is HTML already; the values of attributes are not. `css` stands for class."""
    named = {"class" if key == "css" else key.replace("_", "-"): value for key, value in attributes.items() if value}
    said = "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    return f"<{name}{said}>{''.join(inside)}</{name}>"


def paragraph(*sentences: str, css: str = "") -> str:
    return tag("p", *map(text, sentences), css=css)


def image(png: bytes, *, alt: str, css: str = "") -> str:
    style = f' class="{css}"' if css else ""
    return f'<img{style} alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def table(
    rows: Sequence[Mapping[str, str]],
    *,
    figures: Sequence[str] = (),
    names: Sequence[str] = (),
    html: Sequence[str] = (),
    caption: str = "",
    marked: Sequence[int] = (),
    css: str = "",
) -> str:
    """Rows under their keys. Cells are text, but for the columns of `html`; `figures` stand flush right, `names` on one
    line; `marked` are numbers of rows.
    """

    def kind(column: str) -> str:
        return "figure" if column in figures else "name" if column in names else ""

    head = tag("tr", *(tag("th", text(column), css=kind(column)) for column in rows[0]))
    body = []
    for number, row in enumerate(rows):
        cells = (tag("td", value if column in html else text(value), css=kind(column)) for column, value in row.items())
        body.append(tag("tr", *cells, css="reference" if number in marked else ""))
    title = tag("caption", text(caption)) if caption else ""
    return tag("div", tag("table", title, tag("thead", head), tag("tbody", *body), css=css), css="scroll")


def bar(share: float) -> str:
    return f'<div class="bar"><i style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></i></div>'
