"""What is said on the console and in the log of a run."""

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from rich.console import Console
from rich.tree import Tree

from fewshot_runner.engine.log import Narrator, TrainingLog
from fewshot_runner.runs import RunFolder


def test_a_tree_that_is_wider_than_the_console_loses_nothing():
    written = io.StringIO()
    tree = Tree("config")
    tree.add("  ".join(f"key_{number} value" for number in range(20)))
    Narrator(Console(file=written, width=60, soft_wrap=True)).say(tree)
    assert all(f"key_{number}" in written.getvalue() for number in range(20))


def test_a_brief_narrator_tells_details_to_the_log_alone(tmp_path):
    for brief in (False, True):
        written, log = io.StringIO(), tmp_path / f"{brief}.log"
        narrator = Narrator(Console(file=written), brief=brief)
        with narrator.keeping(log):
            narrator.say("the config", is_detail=True)
            narrator.say("the method")
        assert log.read_text() == "the config\nthe method\n"
        assert written.getvalue() == ("the method\n" if brief else "the config\nthe method\n")


def test_what_takes_a_while_is_shown_on_a_terminal_alone():
    for is_terminal in (False, True):
        written = io.StringIO()
        with Narrator(Console(file=written, force_terminal=is_terminal)).doing("test 5way[1]shot"):
            pass
        assert ("test 5way[1]shot" in written.getvalue()) is is_terminal


@pytest.fixture
def logged(tmp_path, monkeypatch) -> Callable[[Console], list[dict]]:
    """Logs 50 steps on a console, a line of figures every 5 and one second each; gives the lines of metrics.jsonl."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("fewshot_runner.engine.log.time", clock)

    def log_to(console: Console) -> list[dict]:
        run = RunFolder(tmp_path)
        with TrainingLog(run, Narrator(console), Mock(), start=0, max_steps=50) as log:
            for step in range(5, 51, 5):
                clock.now = float(step)
                log.step(step, {"loss": 1 / step}, rate=0.1, images_per_second=9.0)
                if step % 25 == 0:
                    log.validation(step, {"accuracy": step / 100})
        return run.read_metrics()

    return log_to


def test_off_a_terminal_a_line_comes_every_fifteen_seconds_and_with_the_last_validation(logged):
    written = io.StringIO()
    metrics = logged(Console(file=written, width=140))
    assert written.getvalue().splitlines() == [
        "step 15/50  loss 0.0667",
        "step 30/50  loss 0.0333  val accuracy 0.2500",
        "step 45/50  loss 0.0222  val accuracy 0.2500",
        "step 50/50  loss 0.0200  val accuracy 0.5000",
    ]
    assert [line["step"] for line in metrics] == [5, 10, 15, 20, 25, 25, 30, 35, 40, 45, 50, 50]


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_a_bar_shows_the_latest_figures_and_no_line_stays(logged, monkeypatch, no_color):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    written = io.StringIO()
    logged(Console(file=written, force_terminal=True, width=120))
    letters = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue())
    assert re.search(r"train ━+ 50/50 loss 0\.0200  val accuracy 0\.5000", letters)
    assert written.getvalue().endswith("\x1b[1A\x1b[2K")  # which takes the bar away
    assert "step 15/50" not in letters
    assert (re.search(r"\x1b\[(\d+;)*3[0-7]", written.getvalue()) is None) is no_color
