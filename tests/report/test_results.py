"""The tables of one run: its own figures, and those of others beside them."""

import json

import pytest
import yaml
from rich.console import Console

from fewshot_runner.report.results import beside, published_table, results_table, with_interval
from fewshot_runner.runs import SECTIONS, RunFolder

RESULT = {
    "name": "5way1shot", "dataset": "squares", "split": "classes", "metric": "accuracy", "accuracy": 0.97313,
    "ci95": 0.00084, "unit": "episodes", "tasks_count": 10000, "episodes": 10000, "episode_seed": 3,
    "mode": "inductive", "bn_mode": "running",
}  # fmt: skip
RETRIEVAL = {
    "name": "retrieval", "dataset": "whales", "split": "retrieval", "metric": "map_at_5", "map_at_5": 0.647,
    "ci95": 0.021, "unit": "probes", "tasks_count": 200, "episode_seed": None, "mode": "inductive",
    "bn_mode": "running", "further": {"recall_at_1": 0.55, "threshold": -0.25},
}  # fmt: skip


def lines(what) -> list[list[str]]:
    console = Console(width=400, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return [line.split() for line in capture.get().splitlines() if line.split()]


def row(table, name: str) -> list[str]:
    [found] = [line for line in lines(table) if line[0] == name]
    return found


@pytest.mark.parametrize(
    ("published", "ours", "ci95", "verdict"),
    [
        (0.92, 0.95, 0.02, "above"), (0.92, 0.95, 0.04, "inside"), (0.92, 0.89, 0.02, "below"),
        (0.92, 0.89, 0.04, "inside"), (0.92, 0.92, None, "inside"), (0.92, 0.93, None, "above"),
    ],
)  # fmt: skip
def test_where_our_interval_lies(published, ours, ci95, verdict) -> None:
    assert beside(published, {**RESULT, "accuracy": ours, "ci95": ci95}) == verdict


@pytest.fixture
def make(tmp_path):
    def run_folder(results, published) -> RunFolder:
        run = RunFolder(tmp_path)
        run.config.write_text(yaml.safe_dump({**{name: {} for name in SECTIONS}, "published": published}))
        run.summary.write_text(json.dumps({"results": results}))
        return run

    return run_folder


def test_published_figures_stand_beside_the_runs_own(make) -> None:
    foreign = {**RESULT, "dataset": "others", "accuracy": 0.5}  # evaluated later, on other data
    published = {"source": "somebody [2015]", "figures": {"5way1shot": 0.98, "retrieval": 0.64, "verification": 0.9}}
    table = published_table(make([RESULT, RETRIEVAL, foreign], published), width=180)
    assert row(table, "5way1shot") == ["5way1shot", "98.00", "%", "97.31", "±", "0.08", "%", "below"]
    assert row(table, "retrieval") == ["retrieval", "64.00", "%", "64.70", "±", "2.10", "%", "inside"]
    assert not [line for line in lines(table) if line[0] == "verification"]
    assert ["published:", "somebody", "[2015]"] in lines(table)


@pytest.mark.parametrize(
    ("changes", "meant", "shown"),
    [
        ({}, {}, True),
        ({}, {"dataset": ["squares"], "split": ["classes"]}, True),
        ({}, {"dataset": ["others"]}, False),
        ({}, {"split": ["others"]}, False),
        ({"mode": "transductive", "bn_mode": "transductive"}, {}, False),
        ({"name": "5way1shot_transductive"}, {}, False),
        ({"name": "5way1shot_transductive", "mode": "transductive"}, {}, True),
        ({"part": "test"}, {}, True),
        ({"part": "val"}, {}, False),
    ],
)  # fmt: skip
def test_other_data_or_another_mode_is_no_counterpart_of_a_published_figure(make, changes, meant, shown) -> None:
    result = {**RESULT, **changes}
    table = published_table(make([result], {"source": "s", "figures": {result["name"]: 0.5}, **meant}), width=180)
    assert (table is not None) == shown


@pytest.mark.parametrize("published", [None, {"source": "somebody", "figures": {"verification": 0.9}}])
def test_without_a_figure_of_theirs_there_is_no_table(make, published) -> None:
    assert published_table(make([RESULT], published), width=180) is None


def test_a_figure_that_is_no_accuracy_has_no_error() -> None:
    table = results_table([RESULT, RETRIEVAL], title="t", width=180)
    assert row(table, "5way1shot")[3:] == ["accuracy", "97.31", "±", "0.08", "%", "2.69", "%", "10,000", "episodes",
                                          "by", "seed", "3"]  # fmt: skip
    assert row(table, "retrieval")[3:] == ["map_at_5", "64.70", "±", "2.10", "%", "200", "probes", "fixed"]
    assert row(table, "recall_at_1") == ["recall_at_1", "0.5500"]
    assert row(table, "threshold") == ["threshold", "-0.2500"]
    assert with_interval(RETRIEVAL) == "64.70 ± 2.10 %"


def test_what_all_results_have_in_common_is_said_once_and_above() -> None:
    table = lines(results_table([RESULT, {**RESULT, "name": "20way1shot"}], title="t", width=180))
    assert table[:2] == [["t"], ["squares", "classes,", "inductive,", "tasks", "drawn", "by", "seed", "3"]]
    assert table[2] == ["test", "accuracy", "error", "tasks"]
    assert lines(results_table([RETRIEVAL], title="t", width=180))[1][-2:] == ["fixed", "tasks"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_figure_is_cut_off_where_the_terminal_is_narrow(make, width: int) -> None:
    odd = {**RESULT, "name": "transductive", "mode": "transductive", "bn_mode": "transductive", "dataset": "others"}
    folder = make([RESULT, RETRIEVAL, odd], {"source": "somebody " * 9, "figures": {"5way1shot": 0.98}})
    for table in (
        results_table([RESULT, RETRIEVAL, odd], title="t", width=width),
        published_table(folder, width=width),
    ):
        console = Console(width=width)
        with console.capture() as capture:
            console.print(table, soft_wrap=True)
        said = " ".join(capture.get().split())
        assert "97.31 ± 0.08 %" in said
        assert "…" not in said
        assert max(map(len, capture.get().splitlines())) <= max(width, 66)  # a row of figures is not broken
    narrow = lines(results_table([RESULT, odd], title="t", width=40))
    assert ["mode:", "transductive"] in narrow


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"bn_mode": "support"}, "inductive, bn support"),
        ({"bn_mode": "transductive", "mode": "transductive"}, "transductive"),
        ({"bn_mode": "transductive", "mode": "transductive", "imbalance": 2.0}, "transductive, imbalanced"),
        ({"imbalance": None}, "inductive"),
        ({"part": "test"}, "inductive"),
        ({"part": "val"}, "inductive, on validation, which chose the weights"),
        ({"copies": 3}, "inductive, 3 test images seen in training or validation"),
        ({"shown": "centre=true mean=[0.5]"}, "inductive, shown centre=true mean=[0.5]"),
    ],
)
def test_the_mode_says_what_was_seen(changes: dict, mode: str) -> None:
    alone = lines(results_table([{**RESULT, **changes}], title="t", width=180))
    assert " ".join(alone[1]) == f"squares classes, {mode}, tasks drawn by seed 3"
    other = {**RESULT, "name": "other", "mode": "something else"}
    beside_another = results_table([{**RESULT, **changes}, other], title="t", width=180)
    assert " ".join(row(beside_another, "5way1shot")).endswith(f"episodes {mode}")


def test_a_run_without_results_says_so() -> None:
    assert lines(results_table([], title="a/run", width=80)) == [["a/run:", "no", "results"]]


def test_an_interval_is_a_half_width_in_percent():
    assert with_interval({"accuracy": 0.5, "ci95": 0.0123}) == "50.00 ± 1.23 %"
    assert with_interval({"accuracy": 1.0, "ci95": None}) == "100.00 %"


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_holds_the_results_of_a_run(width) -> None:
    several = [{**RESULT, "name": f"{n_way}way1shot_transductive", "mode": "transductive"} for n_way in (5, 20)]
    table = results_table([*several, RETRIEVAL], title="t", width=width).plain
    assert max(map(len, table.splitlines())) <= width
    alike = results_table(several, title="t", width=width).plain.splitlines()
    assert max(map(len, alike)) <= width
    [number] = [number for number, line in enumerate(alike) if "20way1shot" in line]
    assert "97.31 ± 0.08 %" in alike[number]
    assert "10,000 episodes" in " ".join(alike[number : number + 2])
