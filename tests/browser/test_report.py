"""The report as a browser shows it, without a network: on a bright screen, on a dark one, and on paper."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import PATIENCE

from fewshot_runner.cli.main import run

SECTIONS = ["Comparison", "Settings", "Learning curves", "Runs in detail"]
LOOKS = {
    "light": {"color_scheme": "light", "media": "screen"},
    "dark": {"color_scheme": "dark", "media": "screen"},
    "paper": {"color_scheme": "dark", "media": "print"},
}


@pytest.fixture(scope="module")
def report(outputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert run("report", [str(outputs.folder), "-o", str(path)]) == 0
    return path


class Opened:
    """The page, and what it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def opened(chromium, report: Path) -> Iterator[Callable[[str], Opened]]:
    contexts = []

    def open_as(look: str) -> Opened:
        context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        page = Opened(context.new_page())
        page.page.emulate_media(**LOOKS[look])
        page.page.goto(report.as_uri())
        return page

    yield open_as
    for context in contexts:
        context.close()


def colours(page: Any) -> tuple[float, float]:
    """The luminance of paper and ink by the WCAG's formula, from 0 to 1."""
    style = "getComputedStyle(document.body)"
    found = (page.evaluate(f"{style}.{name}") for name in ("backgroundColor", "color"))
    channels = (np.array(re.findall(r"[\d.]+", colour)[:3], dtype=float) / 255 for colour in found)
    linear = (np.where(each <= 0.03928, each / 12.92, ((each + 0.055) / 1.055) ** 2.4) for each in channels)
    paper, ink = (float(each @ [0.2126, 0.7152, 0.0722]) for each in linear)
    return paper, ink


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_is_whole_and_readable_without_a_network(opened, report, look: str):
    shown = opened(look)
    page = shown.page
    assert page.locator("h2").all_inner_texts() == SECTIONS
    assert shown.complaints == []
    assert [url for url in shown.asked if not url.startswith("data:")] == [report.as_uri()]
    paper, ink = colours(page)
    assert (paper < 0.1) == (look == "dark")
    assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 7  # the WCAG's contrast ratio for level AAA
    pictures = page.locator("img").evaluate_all("all => all.map(each => [each.naturalWidth, each.clientWidth])")
    assert pictures
    assert all(natural > 0 and width > 0 for natural, width in pictures)
    charts = page.locator("figure svg").evaluate_all("all => all.map(each => [each.clientWidth, each.clientHeight])")
    assert len(charts) >= 4  # of losses and accuracies, and of ways and shots of each run
    assert all(width > 100 and height > 30 for width, height in charts)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_a_telephone_scrolls_downwards_alone(opened):
    page = opened("light").page
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_paper_shows_nothing_that_only_a_screen_can(opened):
    page = opened("paper").page
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_the_figures_are_those_of_the_summaries(opened, outputs):
    """Accuracies with their intervals, and the difference of the runs on their common episodes."""
    page = opened("light").page
    [table] = page.locator("h2#comparison ~ div.scroll >> table").filter(has_text="difference").all()
    titles = table.locator("th").all_inner_texts()
    rows = [
        dict(zip(titles, row.locator("td").all_inner_texts(), strict=True)) for row in table.locator("tbody tr").all()
    ]
    assert len(rows) == len(outputs.runs)
    tasks = {}
    for method, folder in outputs.runs.items():
        result = outputs.result(method)
        tasks[method] = np.load(folder.path / result["tasks"])
        [row] = [row for row in rows if row["run"].split()[0] == folder.path.name]
        assert row["method"] == method
        assert row["accuracy"] == f"{100 * result['accuracy']:.2f} ± {100 * result['ci95']:.2f} %"
    best, other = (row["method"] for row in rows)
    measured = 100 * (tasks[other].mean(dtype=float) - tasks[best].mean(dtype=float))
    assert measured < 0
    assert rows[0].get("difference", "") == ""
    assert float(rows[1]["difference"].split()[0]) == pytest.approx(measured, abs=0.006)
