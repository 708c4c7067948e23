"""Which settings a comparison tells: those in which runs differ, whether they have results or not."""

import json

import numpy as np
import pytest

from fewshot_runner.report.analysis import VERSION
from fewshot_runner.report.compare import comparison
from fewshot_runner.report.page import page
from fewshot_runner.report.ranking import rank
from fewshot_runner.report.records import find_records

RANDOM = np.random.default_rng(6)


@pytest.fixture
def shown(tmp_path):
    """The comparison of all runs as text, so wide, and the page."""

    def show(width: int = 200) -> tuple[str, str]:
        records, _ = find_records([tmp_path])
        rankings = rank(records)
        return comparison(rankings, records, width=width).plain, page(rankings, records, title="")

    return show


def test_a_run_without_results_tells_what_sets_it_apart_from_those_with_some(make, config, result, shown):
    make(config(lr=0.1), results=[result(RANDOM.random(20))])
    make(config(lr=30.0), state="failed", reason="loss is nan")
    text, html = shown()
    table = text[text.index("without results") :].splitlines()
    assert "method.optimizer.lr" in table[1]
    assert "30.0" in table[3]
    section = html[html.index("Without results") :]
    assert "method.optimizer.lr" in section
    assert "30.0" in section


def test_settings_that_share_a_line_are_explained_where_they_do(make, config, result, shown):
    explained = "of the others what differs from the first"
    for lr in (0.1, 0.2):
        make(config(lr=lr), results=[result(RANDOM.random(20))])
    assert explained not in shown()[0]
    for number in range(2):
        settings = {f"option_{letter}": f"{letter}{number}" for letter in "abcdefg"}
        make(config(**settings), results=[result(RANDOM.random(20))])
    text, _ = shown()
    assert text.count(explained) == 1


def test_an_interval_of_few_episodes_is_left_out(make, result, shown, tmp_path):
    run = make(results=[{**result(RANDOM.random(20)), "step": 10}])
    run.analysis.mkdir()
    classes = [
        {"name": name, "group": "", "accuracy": 0.5, "ci95": 0.3, "count": count}
        for name, count in (("rare", 4), ("common", 5))
    ]
    content = {"version": VERSION, "step": 10, "test": "5way1shot", "unit": "episodes", "classes": classes}
    (run.analysis / "analysis.json").write_text(json.dumps(content))
    _, html = shown()
    rare, common = html[html.index("rare") :].split("common")
    assert "50.0 %" in rare
    assert "50.0 ± 30.0 %" in common
