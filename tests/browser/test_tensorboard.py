"""What a person sees in TensorBoard of two runs of different methods."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest
from event_files import begin_another_second
from processes import FSL, PATIENCE, started

from fewshot_runner.engine.tensorboard import TensorBoard
from fewshot_runner.runs import RunFolder


@pytest.fixture(scope="session")
def _resumed(outputs) -> None:
    """Events of steps 1 to 12, and after a kill of 9 to 16, beside the runs."""
    run = RunFolder(outputs.folder / "killed" / "run")
    run.path.mkdir(parents=True)
    for resumed_after, steps in ((None, range(1, 13)), (8, range(9, 17))):
        board = TensorBoard(run, resumed_after=resumed_after)
        for step in steps:
            board.scalar("figure/resumed", step + (100.0 if resumed_after else 0.0), step)
        board.close()
        begin_another_second()


@pytest.fixture(scope="module")
def server(outputs, _resumed: None) -> Iterator[str]:
    """Where `fsl tb` says that it is."""
    with started([*FSL, "tb", str(outputs.folder), "--port", "0"], stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        assert line.startswith("TensorBoard: http://127.0.0.1:"), line
        yield line.split()[1]


@pytest.fixture
def tab(chromium, server: str) -> Iterator[Callable[[str], Any]]:
    """Opens a tab of TensorBoard's, wide enough for its tables; only this machine can be reached."""
    context = chromium.new_context(viewport={"width": 1800, "height": 800})
    context.set_default_timeout(1000 * PATIENCE)
    context.route(lambda url: not url.startswith((server, "data:", "blob:")), lambda route: route.abort())

    def opened(name: str) -> Any:
        page = context.new_page()
        page.goto(f"{server}#{name}", wait_until="commit")
        return page

    yield opened
    context.close()


def names(outputs) -> list[str]:
    return [f"{run.name}/tb" for run in outputs.runs.values()]


def table(page: Any) -> list[dict[str, str]]:
    """The rows of the grid on the page, by the titles of its columns: its cells stand in order only on the screen."""
    cells = page.locator("vaadin-grid-cell-content").evaluate_all(
        "cells => cells.map(cell => [cell.getBoundingClientRect(), cell.innerText.trim()])"
        ".filter(([box, text]) => box.height).map(([box, text]) => [Math.round(box.x), box.y, text])"
    )
    columns = {}
    for _, column in groupby(sorted(cells), key=lambda cell: cell[0]):
        title, *values = (text for _, _, text in column)
        columns[" ".join(title.split())] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False) if any(row)]


def test_both_runs_stand_in_time_series_with_their_test_accuracies(tab, outputs):
    page = tab("timeseries")
    for name in names(outputs):
        page.get_by_text(name).first.wait_for()
    card = page.locator("scalar-card").filter(has_text="accuracy/test").first
    for method, name in zip(outputs.runs, names(outputs), strict=True):
        row = card.locator("tb-data-table-content-row").filter(has_text=name)
        row.wait_for()
        figure = row.locator("tb-data-table-content-cell").filter(has_text="0.").last
        assert float(figure.inner_text()) == pytest.approx(outputs.result(method)["accuracy"], abs=1e-4)


def test_both_runs_are_rows_of_hparams_with_their_settings_and_test_accuracies(tab, outputs):
    page = tab("hparams")
    page.get_by_text("Trial ID").first.wait_for()
    page.locator("vaadin-grid-cell-content").filter(has_text="siamese").first.wait_for()
    rows = {row["method"]: row for row in table(page)}
    assert rows.keys() == set(outputs.runs)
    for method, row in rows.items():
        assert row["Trial ID"].startswith(outputs.runs[method].name[:12])
        assert float(row["accuracy/test"]) == pytest.approx(outputs.result(method)["accuracy"], rel=1e-3)


def test_training_and_validation_of_both_runs_share_a_chart(tab, outputs):
    page = tab("custom_scalars")
    for name in names(outputs):
        page.get_by_text(name).first.wait_for()
    charts = page.locator("tf-custom-scalar-multi-line-chart-card")
    first = charts.filter(has_text="training loss and validation figure")
    first.get_by_text("Matches (4)").wait_for()  # a line for training and one for validation, of each run
    assert charts.count() == 3
    for name in (*names(outputs), "loss/train", "accuracy/val"):
        matches = first.locator(".match-list-entry").filter(has_text=name)
        matches.first.wait_for(state="attached")
        assert matches.count() == 2, name


def test_a_resumed_run_shows_no_point_twice(server: str):
    with urllib.request.urlopen(f"{server}data/plugin/scalars/scalars?run=killed/run/tb&tag=figure/resumed") as answer:
        points = json.load(answer)
    assert [(step, value) for _, step, value in points] == [(s, s + (100.0 if s > 8 else 0.0)) for s in range(1, 17)]
