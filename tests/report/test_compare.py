"""Tables made from run folders alone; the folders are written here by hand."""

import json
import subprocess
import sys

import pytest
import yaml
from rich.console import Console

from fewshot_runner.errors import UserError
from fewshot_runner.report.compare import compare_table, find_runs, rows_of
from fewshot_runner.report.config import config_tree, flatten
from fewshot_runner.report.predictions import prediction_table
from fewshot_runner.report.results import results_table, with_interval
from fewshot_runner.runs import RunFolder

RESULT = {
    "name": "5way1shot", "dataset": "squares", "split": "classes", "accuracy": 0.97313, "ci95": 0.00084,
    "episodes": 10000, "episode_seed": 3, "mode": "inductive",
}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def run_folder(name, config, state="done", results=(), **status):
        run = RunFolder(tmp_path / "outputs" / "squares-siamese" / name)
        run.path.mkdir(parents=True)
        run.config.write_text(yaml.safe_dump(config, sort_keys=False))
        run.status.write_text(json.dumps({"state": state, "step": 1, "seconds": 12.3, **status}))
        run.summary.write_text(json.dumps({"results": list(results)}))
        return run

    return run_folder


def config(method="siamese", seed=0, **method_settings):
    return {
        "choices": {"dataset": "squares", "method": method},
        "seed": seed,
        "output_dir": f"somewhere-{method}-{seed}",
        "dataset": {"root": f"/data/{seed}", "cache": f"/cache/{seed}"},
        "method": {"optimizer": {"lr": 0.1, **method_settings}},
    }


def text_of(what) -> str:
    console = Console(width=400, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_runs_are_found_below_a_folder_and_by_themselves(make, tmp_path):
    late, early = make("20260102-000000-bbbbbb", config()), make("20260101-000000-aaaaaa", config())
    assert [run.path for run in find_runs([tmp_path])[0]] == [early.path, late.path]
    assert [run.path for run in find_runs([late.path])[0]] == [late.path]
    assert find_runs([tmp_path / "outputs"])[1] == []
    with pytest.raises(UserError, match="nowhere"):
        find_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize("file", ["config.yaml", "status.json", "summary.json"])
def test_a_damaged_run_is_named_and_the_others_are_shown(make, tmp_path, file):
    good, bad = make("20260101-000000-aaaaaa", config()), make("20260102-000000-bbbbbb", config())
    (bad.path / file).write_text("{ [")
    runs, skipped = find_runs([tmp_path])
    assert [run.path for run in runs] == [good.path]
    assert len(skipped) == 1
    assert str(bad.path / file) in skipped[0]


def test_only_what_differs_becomes_a_column(make):
    runs = [make("20260101-000000-aaaaaa", config(seed=0)), make("20260102-000000-bbbbbb", config(seed=1))]
    first, second = rows_of(runs)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first.keys() == {"run", "state", "seed", "seconds"}


def test_a_choice_tells_what_it_brings_with_it(make):
    runs = [
        make("20260101-000000-aaaaaa", config("siamese", hidden=3)),
        make("20260102-000000-bbbbbb", config("prototypical", distance="cosine")),
    ]
    assert [row["method"] for row in rows_of(runs)] == ["siamese", "prototypical"]
    assert not any(key.startswith("method.") for row in rows_of(runs) for key in row)


def test_a_setting_of_one_choice_is_a_column(make):
    runs = [make("20260101-000000-aaaaaa", config(lr=0.1)), make("20260102-000000-bbbbbb", config(lr=0.2))]
    assert [row["method.optimizer.lr"] for row in rows_of(runs)] == [0.1, 0.2]


def test_accuracies_stand_with_their_interval_and_failures_with_their_reason(make):
    runs = [
        make("20260101-000000-aaaaaa", config(seed=0), results=[RESULT]),
        make("20260102-000000-bbbbbb", config(seed=1), state="failed", reason="loss is nan"),
    ]
    first, second = rows_of(runs)
    assert first["squares classes 5way1shot"] == 0.97313
    assert first["squares classes 5way1shot ci95"] == 0.00084
    assert second["reason"] == "loss is nan"
    table = text_of(compare_table([first, second]))
    assert "97.31 ± 0.08 %" in table
    assert "failed: loss is nan" in table
    assert "squares-siamese/20260101-000000-aaaaaa" in table
    assert "ci95" not in table


def test_settings_are_flat(make):
    run = make("20260101-000000-aaaaaa", config())
    assert flatten(run.read_config())["method.optimizer.lr"] == 0.1
    assert flatten(run.read_config())["choices.method"] == "siamese"


def test_a_result_stands_with_interval_episodes_and_seed():
    table = text_of(
        results_table([RESULT, {**RESULT, "name": "lake_runs", "ci95": None, "episode_seed": None}], title="t")
    )
    [first] = [line for line in table.splitlines() if "5way1shot" in line]
    assert first.split() == ["5way1shot", "squares", "classes", "97.31", "±", "0.08", "%", "2.69", "%", "10,000", "3",
                             "inductive"]  # fmt: skip
    [second] = [line for line in table.splitlines() if "lake_runs" in line]
    assert "±" not in second
    assert "fixed" in second


def test_an_interval_is_a_half_width_in_percent():
    assert with_interval({"accuracy": 0.5, "ci95": 0.0123}) == "50.00 ± 1.23 %"
    assert with_interval({"accuracy": 1.0, "ci95": None}) == "100.00 %"


def test_predictions_name_the_best_and_the_runners_up():
    ranking = [{"class": "cat", "score": 0.75}, {"class": "dog", "score": 0.25}]
    table = text_of(prediction_table([{"image": "a.png", "ranking": ranking}]))
    assert "a.png" in table
    assert "cat 75.0 %" in table
    assert "dog 25.0 %" in table


def test_names_with_brackets_are_printed_as_they_are():
    ranking = [{"class": "[red]cat", "score": 0.75}, {"class": "x[/]", "score": 0.25}]
    table = text_of(prediction_table([{"image": "[bold].png", "ranking": ranking}]))
    assert "[bold].png" in table
    assert "[red]cat 75.0 %" in table
    assert "x[/] 25.0 %" in table
    assert "[1, 2]" in text_of(config_tree({"model": {"widths": [1, 2]}, "name": "[red]"}))


def test_the_config_is_a_tree_headed_by_its_choices():
    tree = text_of(config_tree(config()))
    assert "method siamese" in tree
    assert "optimizer" in tree
    assert "lr 0.1" in tree
    assert "choices" not in tree


def test_reports_are_made_without_torch():
    program = (
        "import sys, pkgutil, importlib, fewshot_runner.report as r\n"
        "names = [m.name for m in pkgutil.iter_modules(r.__path__)]; assert names\n"
        "for name in names: importlib.import_module('fewshot_runner.report.' + name)\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
