"""The run that others are compared with is the one that was named, and no other."""

import json

import numpy as np
import pytest

from fewshot_runner.errors import UserError
from fewshot_runner.report.ranking import find_baseline, rank
from fewshot_runner.report.records import find_records

RANDOM = np.random.default_rng(5)
OLD, NEW, OTHER = (RANDOM.uniform(low, low + 0.3, 30) for low in (0.6, 0.5, 0.3))


@pytest.fixture
def records(tmp_path):
    return lambda: find_records([tmp_path / "outputs"])[0]


def differences(ranking) -> dict[str, float | None]:
    """In points, to the reference, by the last digit of the run's time."""
    return {
        row.group.records[0].run.path.name[14]: None if row.difference is None else 100 * row.difference.mean
        for row in ranking.rows
    }


def test_an_older_run_of_the_same_seed_is_compared_with_by_its_own_figures(make, config, result, records):
    make(config(), results=[result(OLD)]), make(config(), results=[result(NEW)])
    make(config("pixels"), results=[result(OTHER)])
    old, new, other = records()
    [ranking] = rank([old, new, other], baseline=old)
    expected = {"0": None, "1": 100 * (NEW - OLD).mean(), "2": 100 * (OTHER - OLD).mean()}
    assert differences(ranking) == pytest.approx(expected, abs=1e-4)
    assert list(ranking.reference.group.records) == [old]
    assert [list(row.group.repeats) for row in ranking.rows] == [[], [], []]  # what has a row is told once
    [usual] = rank([old, new, other], baseline=new)
    assert differences(usual) == pytest.approx({"1": None, "2": 100 * (OTHER - NEW).mean()}, abs=1e-4)


def test_a_baseline_that_was_not_asked_for_joins_no_row(make, config, result, records):
    for seed, values in enumerate((OLD, NEW, NEW - 0.1)):
        make(config(seed=seed), results=[result(values)])
    zero, *others = records()
    [ranking] = rank(others, baseline=zero)
    assert [(row.group.seeds, row.is_reference) for row in ranking.rows] == [([0], True), ([1, 2], False)]
    assert ranking.rows[1].difference.mean == pytest.approx((NEW - 0.05 - OLD).mean(), abs=1e-6)


def test_a_baseline_without_results_is_not_stood_in_for_by_another_run(make, config, result, records):
    make(config(), results=[result(OLD)]), make(config(), state="failed")
    make(config("pixels"), results=[result(OTHER)])
    done, failed, other = records()
    [ranking] = rank([done, failed, other], baseline=failed)
    assert ranking.reference is None
    assert differences(ranking) == {"0": None, "2": None}


def test_a_baseline_may_lie_elsewhere(make, config, result, records, tmp_path, monkeypatch):
    run = make(config(seed=9), results=[result(OLD)])
    elsewhere = run.path.rename(tmp_path / "elsewhere")
    make(config(), results=[result(NEW)])
    found = records()
    monkeypatch.chdir(tmp_path)
    for named in (str(elsewhere), "elsewhere", "elsewhere/"):
        baseline = find_baseline(found, named)
        assert baseline.run.path.resolve() == elsewhere
    [ranking] = rank(found, baseline=baseline)
    assert [row.is_reference for row in ranking.rows] == [True, False]


def test_a_baseline_that_is_none_is_refused_with_what_is_wrong(make, records, tmp_path):
    make(), make()
    found = records()
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_text("seed: 1\n")
    (damaged / "status.json").write_text(json.dumps([]))
    for wrong, said in (
        (tmp_path / "empty", "not a run folder"), (damaged, "status.json: holds no JSON object"),
        (tmp_path / "nowhere", "none of the compared runs is called so"), ("x" * 300, "none of the compared runs"),
        ("abcdef", "2 of the compared runs are called so"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            find_baseline(found, str(wrong))
