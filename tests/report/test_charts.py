"""Charts: where points come to lie, by hand, and that the SVG is well-formed and free of foreign markup."""

import re
from xml.etree import ElementTree

import pytest

from fewshot_runner.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    heat_map,
    line_chart,
    number,
    thinned,
    ticks,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1000], [0, 200, 400, 600, 800, 1000]),
        ([0.93, 0.99], [0.92, 0.94, 0.96, 0.98, 1.0]),
        ([3, 3], [1.0, 2.0, 3.0, 4.0, 5.0]),
        ([0, 5e-324], [-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6]),
        ([-1e-6, 1e-6], [-1e-6, -5e-7, 0, 5e-7, 1e-6]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values, expected):
    found = ticks(values)
    assert found[0] <= min(values) <= max(values) <= found[-1]
    assert found == pytest.approx(expected)
    assert 3 <= len(found) <= 8


def test_points_come_to_lie_where_the_ticks_say():
    line = Line("a", 1, [(0, 0.0), (500, 0.5), (1000, 1.0)])
    svg = line_chart([line], x_title="step", y_title="accuracy", percent=True)
    [points] = re.findall(r'<polyline class="s1" points="([^"]+)"', svg)
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    expected = [(left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, top)]
    for found, point in zip(points.split(), expected, strict=True):
        assert tuple(map(float, found.split(","))) == pytest.approx(point, abs=0.06)
    assert ">100 %<" in svg
    ElementTree.fromstring(svg)


def test_what_is_not_finite_is_left_out_and_a_point_alone_is_a_dot():
    assert line_chart([Line("a", 0, [(1, float("nan")), (2, float("inf"))])], x_title="x", y_title="y") == ""
    assert line_chart([], x_title="x", y_title="y") == ""
    svg = line_chart([Line("a", 0, [(1, 2.0), (2, float("nan"))])], x_title="x", y_title="y")
    assert "<circle" in svg
    assert "nan" not in svg


def draw(points) -> str:
    return line_chart([Line("a", 0, points)], x_title="x", y_title="y")


@pytest.mark.parametrize("large", [1e308, -1e308, 10**308])
def test_what_is_too_large_for_the_axes_is_left_out(large):
    chart = draw([(1, 0.5), (large, 0.5), (2, large), (3, 0.7)])
    assert chart == draw([(1, 0.5), (3, 0.7)])
    assert draw([(large, large)]) == ""
    widest = draw([(0, -1e299), (1, 1e299)])
    assert "nan" not in widest
    assert max(map(len, re.findall(">([^<>]+)</text>", widest))) < 10


def test_more_than_eight_lines_are_told_apart_by_dashes():
    svg = line_chart([Line("a", 9, [(0, 0), (1, 1)])], x_title="x", y_title="y")
    assert 'class="s1 dashed"' in svg


def test_long_series_are_thinned_and_keep_their_ends():
    points = [(k, k) for k in range(10_001)]
    kept = thinned(points)
    assert len(kept) == MOST_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:50]) == points[:50]


def test_a_heat_map_shades_from_its_lowest_to_its_highest():
    svg = heat_map([[0.5, 0.75], [1.0, 0.5]], [["a", "b"], ["c", "<d>"]], rows=[2, 5], columns=[1, 10],
                   row_title="ways", column_title="shots")  # fmt: skip
    tree = ElementTree.fromstring(svg)
    shades = [float(cell.get("fill-opacity")) for cell in tree.iter("rect")]
    assert shades == pytest.approx([0.08, 0.39, 0.70, 0.08])
    texts = ["".join(each.itertext()) for each in tree.iter("text")]
    assert [text for text in texts if "." in text] == ["50.0", "75.0", "100.0", "50.0"]
    assert "&lt;d&gt;" in svg
    flat = heat_map([[0.5]], [["a"]], rows=[2], columns=[1], row_title="r", column_title="c")
    ElementTree.fromstring(flat)


def test_labels_are_no_markup():
    svg = line_chart([Line("<script>&", 0, [(0, 0), (1, 1)])], x_title="<x>", y_title='"y"')
    ElementTree.fromstring(svg)
    assert "<script>" not in svg
    assert "<x>" not in svg


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (2000, "2,000"), (0.25, "0.25"), (1e-6, "1e-06"), (999, "999")])
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "values",
    [(0.9518933333333334, 0.9518933333333333), (0.2, 0.2 + 5.6e-17, 0.2), (1e9, 1e9 + 1e-7), (-3.0, -3.0)],
)
def test_what_differs_by_rounding_alone_is_a_straight_line(values):
    points = re.findall(r'points="([^"]+)"', draw(list(enumerate(values))))[0].split()
    heights = {point.split(",")[1] for point in points}
    assert len(heights) == 1
    assert TOP < float(heights.pop()) < HEIGHT - BOTTOM


@pytest.mark.parametrize(("share", "expected"), [(0.95, (0.4, 1.0)), (1.0, (0.5, 1.0)), (0.0, (0.0, 0.5))])
def test_the_axis_around_a_share_ends_where_shares_do(share, expected):
    found = ticks([share, share], within=(0, 1))
    assert (found[0], found[-1]) == pytest.approx(expected)
    assert ticks([1.5, 1.5], within=(0, 1))[-1] >= 1.5
