"""The comparison for other programs: a row a run."""

import csv
import io
import json

import numpy as np

from fewshot_runner.report.flat import flat_rows
from fewshot_runner.report.ranking import rank
from fewshot_runner.report.records import find_records

FIGURES = np.random.default_rng(0).choice([0.2, 0.4, 0.6, 0.8, 1.0], 50)


def rows_of(path) -> list[dict]:
    records, _ = find_records([path])
    return flat_rows(rank(records), records)


def test_flat_rows_are_json_and_csv(make, config, result, tmp_path):
    make(config(seed=0), results=[result(FIGURES)]), make(config(seed=1), results=[result(FIGURES)])
    rows = json.loads(json.dumps(rows_of(tmp_path)))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader(), writer.writerows(rows)
    assert len(list(csv.DictReader(io.StringIO(out.getvalue())))) == 2


def test_rows_without_a_table_stand_in_the_order_of_the_rankings(make, config, result, tmp_path):
    """And behind them what stands in none: repeats, and runs without results."""
    random = np.random.default_rng(1)
    for seed, shift in ((1, 0.0), (0, 0.0), (1, 0.1)):  # the last is a repeat that counts
        make(config(lr=0.1, seed=seed), results=[result(random.uniform(0, 0.5, 50) + shift)])
    make(config(lr=0.2), state="failed", reason="x")
    make(config(lr=0.3), results=[result(random.uniform(0.5, 1, 50))])
    assert [row["run"][-8] for row in rows_of(tmp_path)] == ["4", "1", "2", "0", "3"]


def test_of_several_results_of_a_run_the_one_over_most_episodes_is_told_whether_it_counts_or_not(
    make, result, tmp_path
):
    for shift in (0.1, 0.0):  # of one seed: the newer counts
        make(results=[result(FIGURES - shift), result(FIGURES[:20] - shift)])
    counted, repeat = rows_of(tmp_path)
    name = "squares classes 5way1shot"
    assert counted[name] == FIGURES.mean()
    assert repeat[name] == np.mean(FIGURES - 0.1)
