"""Charts as SVG: lines and heat maps, drawn here so that a page needs neither a network nor a plotting library.

Colours come from the page's style sheet (classes s0 to s7 for series), so that they follow its light or dark scheme.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil, floor, inf, log10

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 22, 12, 36
COLOURS = 8
MOST_POINTS = 400
LARGEST, SMALLEST = 1e300, 1e-300  # that the arithmetic of axes can bear
NOISE = 1e-9  # of values that lie no farther apart than this share of their size


@dataclass(frozen=True)
class Line:
    """`number` chooses the colour; lines of one experiment share it."""

    label: str
    number: int
    points: Sequence[tuple[float, float]]


def line_chart(lines: Sequence[Line], *, x_title: str, y_title: str, percent: bool = False) -> str:
    """Without points that are not finite, or too large for the axes' arithmetic; a point alone is a dot."""
    drawn = [replace(line, points=thinned([p for p in line.points if all(map(can_be_drawn, p))])) for line in lines]
    points = [point for line in drawn for point in line.points]
    if not points:
        return ""
    xs = ticks([x for x, _ in points])
    ys = ticks([y for _, y in points], within=(0, 1) if percent else (-inf, inf))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + inner_width * (x - xs[0]) / (xs[-1] - xs[0])
        return across, TOP + inner_height * (1 - (y - ys[0]) / (ys[-1] - ys[0]))

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} over {escape(x_title)}">']
    for y in ys:
        height = place(xs[0], y)[1]
        text = number(100 * y) + " %" if percent else number(y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{height + 3.5:.1f}" text-anchor="end">{text}</text>')
    for x in xs:
        across = place(x, ys[0])[0]
        parts.append(
            f'<text class="tick" x="{across:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(x)}</text>'
        )
    middle = LEFT + inner_width / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>')
    for line in drawn:
        title = f"<title>{escape(line.label)}</title>"
        style = f"s{line.number % COLOURS}" + " dashed" * (line.number // COLOURS % 2)
        where = [place(*point) for point in line.points]
        if len(where) == 1:
            [(x, y)] = where
            parts.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>')
        elif where:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
            parts.append(f'<polyline class="{style}" points="{path}">{title}</polyline>')
    return "".join([*parts, "</svg>"])


def heat_map(
    values: Sequence[Sequence[float]],
    notes: Sequence[Sequence[str]],
    *,
    rows: Sequence[object],
    columns: Sequence[object],
    row_title: str,
    column_title: str,
) -> str:
    """Shares from 0 to 1 as shaded cells with their percentage; a note is what a cell says under the pointer.

    The shade tells the cells of one map apart, from its lowest value to its highest.
    """
    cell_width, cell_height, left, top = 62, 30, 64, 40
    low, high = min(map(min, values)), max(map(max, values))
    width, height = left + cell_width * len(columns) + 4, top + cell_height * len(rows) + 4
    parts = [
        f'<svg class="heat" viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="accuracy over {escape(row_title)} and {escape(column_title)}">',
        f'<text class="tick" x="{left + cell_width * len(columns) / 2}" y="12" text-anchor="middle">'
        f"{escape(column_title)}</text>",
        f'<text class="tick" x="4" y="{top - 8}">{escape(row_title)}</text>',
    ]
    for k, column in enumerate(columns):
        middle = left + cell_width * (k + 0.5)
        parts.append(f'<text class="tick" x="{middle}" y="{top - 8}" text-anchor="middle">{escape(str(column))}</text>')
    for r, row in enumerate(rows):
        y = top + cell_height * r
        middle = y + cell_height / 2 + 4
        parts.append(f'<text class="tick" x="{left - 10}" y="{middle}" text-anchor="end">{escape(str(row))}</text>')
        for k, value in enumerate(values[r]):
            x = left + cell_width * k
            shade = 0.08 + 0.62 * ((value - low) / (high - low) if high > low else 1.0)
            parts.append(
                f'<g><title>{escape(notes[r][k])}</title><rect class="cell" x="{x}" y="{y}" width="{cell_width - 2}" '
                f'height="{cell_height - 2}" rx="3" fill-opacity="{shade:.3f}"/><text class="in-cell" '
                f'x="{x + cell_width / 2 - 1}" y="{middle}" text-anchor="middle">{100 * value:.1f}</text></g>'
            )
    return "".join([*parts, "</svg>"])


def can_be_drawn(value: float) -> bool:
    return abs(value) < LARGEST  # neither is nan


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, evenly chosen, the last one always among them."""
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(k * step)] for k in range(MOST_POINTS)]


def ticks(values: Sequence[float], count: int = 5, *, within: tuple[float, float] = (-inf, inf)) -> list[float]:
    """Round numbers, about `count` of them, from below the lowest value to above the highest.

    Around values that are the same but for rounding there is room on both sides, as far as values can be: `within`.
    """
    low, high = min(values), max(values)
    if high - low <= NOISE * max(abs(low), abs(high), SMALLEST):
        half = abs(low) / 2 if abs(low) > SMALLEST else 0.5
        low, high = max(low - half, min(low, within[0])), min(high + half, max(high, within[1]))
    raw = (high - low) / count
    magnitude = 10 ** floor(log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """As short as can be: 2,000, 0.25, 1e-06."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
