"""Runs that have results and are not done: their state, and why, stand with their figures."""

import numpy as np
import pytest

from fewshot_runner.report.cells import cells
from fewshot_runner.report.compare import comparison
from fewshot_runner.report.flat import flat_rows
from fewshot_runner.report.page import page
from fewshot_runner.report.ranking import rank
from fewshot_runner.report.records import find_records

FIGURES = np.random.default_rng(0).choice([0.2, 0.4, 0.6, 0.8, 1.0], 50)
WHY = "stopped by SIGTERM while the machine was going down for maintenance"


@pytest.fixture
def table(tmp_path):
    def of(width: int = 400, **options) -> str:
        records, _ = find_records([tmp_path])
        return comparison(rank(records, **options), records, width=width).plain

    return of


def beneath(table: str, run: str) -> tuple[str, str]:
    """The line of a run, and what stands indented below it."""
    lines = table.splitlines()
    [number] = [number for number, line in enumerate(lines) if run in line]
    told = []
    for line in lines[number + 1 :]:
        if not line.startswith("    "):
            break
        told.append(line.strip())
    return lines[number], " ".join(told)


@pytest.mark.parametrize("state", ["stopped", "failed", "pruned"])
@pytest.mark.parametrize("width", [60, 80, 400])
def test_a_result_with_nothing_beside_it_says_that_its_run_is_not_done_and_why(make, result, table, state, width):
    make(results=[result(FIGURES)], state=state, reason=WHY)
    line, told = beneath(table(width), "000000-abcdef")
    assert line.split()[1] == state
    assert (WHY in told) == (width < 400)
    assert WHY in f"{line} {told}"
    assert f"reason: {WHY}" not in told
    assert told.startswith(WHY) or width == 400  # first of all that stands there


@pytest.mark.parametrize("width", [60, 80, 400])
def test_a_ranking_says_which_runs_are_not_done_and_why(make, config, result, table, width):
    make(config(lr=0.1), results=[result(FIGURES)])
    make(config(lr=0.2), results=[result(FIGURES - 0.1)], state="stopped", reason=WHY)
    done = " ".join(beneath(table(width), "000000-abcdef"))
    line, told = beneath(table(width), "000001-abcdef")
    assert "stopped" in line
    assert WHY in f"{line} {told}"
    assert (WHY in told) == (width < 400)
    assert "stopped" not in done


def test_of_several_seeds_it_is_said_which_is_not_done(make, config, result, table):
    for seed in range(3):
        ended = {"state": "stopped", "reason": f"why {seed}"} if seed else {}
        make(config(seed=seed), results=[result(FIGURES - seed / 50)], **ended)
    assert "seed 1: why 1; seed 2: why 2" in table()
    make(config(lr=0.2), results=[result(FIGURES)])
    assert "seed 1: why 1; seed 2: why 2" in table()


def test_where_all_runs_are_done_nothing_is_said_of_it(make, config, result, table):
    make(config(lr=0.1), results=[result(FIGURES)])
    assert {"state", "reason"} & set(table().split()) == set()
    make(config(lr=0.2), results=[result(FIGURES - 0.1)])
    assert {"state", "reason"} & set(table().split()) == set()


@pytest.mark.parametrize("count", [1, 2])
def test_the_report_and_other_programs_are_told_as_well(make, config, result, tmp_path, count):
    for k in range(count):
        make(config(lr=k + 0.1), results=[result(FIGURES - k / 9)], state="stopped", reason=WHY)
    records, _ = find_records([tmp_path])
    html = page(rank(records), records, title="t")
    assert html.count(f"<td>{WHY}</td>") == html.count("<td>stopped</td>") == count
    assert [(row["state"], row["reason"]) for row in flat_rows(rank(records), records)] == [("stopped", WHY)] * count


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_holds_results_with_nothing_to_compare_them_with(make, config, result, table, width):
    long = {"dataset": "omniglot", "split": "alphabets", "name": "20way1shot_transductive"}
    for seed in range(3):
        make(config(seed=seed), results=[result(FIGURES - seed / 50, **long)])
    make(config(lr=0.2), results=[result(FIGURES[:20], split="images")], state="stopped", reason=WHY)
    lines = table(width).splitlines()
    assert max(map(len, lines)) <= width
    line, told = beneath("\n".join(lines), "000000-abcdef")
    assert f"{100 * (FIGURES.mean() - 1 / 50):.2f} ± " in line
    for words in ("test: omniglot alphabets 20way1shot_transductive", "50 episodes of seed 3", "metric: accuracy"):
        assert words in told
    half = 4.302653 * 2 / 3**0.5  # Student's t, 2 degrees; the seeds lie two points apart
    assert f"± {half:.2f} (2.00)" in f"{line} {told}"


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_holds_a_ranking_of_runs_that_are_not_done(make, config, result, table, width):
    for lr in (0.1, 0.2):
        for seed in (0, 1, 1):  # the last is a repeat
            make(config(lr=lr, seed=seed), results=[result(FIGURES - lr)], state="stopped", reason=WHY)
    assert max(map(len, table(width).splitlines())) <= width


@pytest.mark.parametrize(("seed", "said"), [(None, "more seeds"), (3, "out of reach")])
def test_only_of_tasks_that_may_be_more_it_is_said_that_nothing_would_do(make, config, result, tmp_path, seed, said):
    """A thousand seeds would steady the figures of fixed tasks as well, by nobody knows how much."""
    for lr in (1, 2):
        for k in range(2):
            figures = np.roll(FIGURES, lr) / 2 + k / 10 + lr * 1e-5
            make(config(lr=lr, seed=k), results=[result(figures, episode_seed=seed)])
    [ranking] = rank(find_records([tmp_path])[0])
    assert cells(ranking.rows[1], ranking)["needed"] == said


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(range(3), "0,1,2"), (range(20), "0 to 19"), ((0, 1, 2, 4), "0,1,2,4"), (range(1, 5), "1,2,3,4")],
)
def test_many_seeds_take_little_room(make, config, result, tmp_path, seeds, said):
    for seed in seeds:
        make(config(seed=seed), results=[result(FIGURES)])
    [ranking] = rank(find_records([tmp_path])[0])
    assert cells(ranking.rows[0], ranking)["seeds"] == said


def test_two_runs_without_a_mistake_are_not_said_to_be_the_same(make, config, result, tmp_path):
    """Of 10 pictures; the ends lie z^2 / (10 + z^2) = 27.75 points away, as for each run alone."""
    for lr in (1, 2):
        make(config(lr=lr), results=[result(np.ones(10), unit="images", episode_seed=None)])
    [ranking] = rank(find_records([tmp_path])[0])
    told = cells(ranking.rows[1], ranking)
    assert told["difference"] == "+0.00 ± 27.75"
    assert told["needed"] == "no difference seen"
