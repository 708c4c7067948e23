"""Finding and reading run folders of any age and condition."""

import json
import platform

import numpy as np
import pytest
import yaml

from fewshot_runner.errors import UserError
from fewshot_runner.report.records import find_records
from fewshot_runner.report.sections import parse_settings
from fewshot_runner.report.settings import compared, differing, matches
from fewshot_runner.report.tasks import read_tasks
from fewshot_runner.settings import flatten


def paths_of(records):
    return [record.run.path for record in records]


def test_runs_are_found_below_a_folder_and_by_themselves_once_each(make, tmp_path):
    early, late = make(), make()
    assert paths_of(find_records([tmp_path])[0]) == [early.path, late.path]
    assert paths_of(find_records([late.path])[0]) == [late.path]
    assert paths_of(find_records([late.path, tmp_path, early.path])[0]) == [early.path, late.path]
    assert find_records([tmp_path / "outputs"])[1] == []
    with pytest.raises(UserError, match="nowhere"):
        find_records([tmp_path / "nowhere"])


def test_nothing_is_looked_for_inside_of_a_run_nor_in_its_exports(make, tmp_path):
    run = make()
    for inside in (run.path / "export", tmp_path / "export", run.checkpoints):
        inside.mkdir(parents=True, exist_ok=True)
        (inside / "config.yaml").write_text("a: 1\n")
    assert paths_of(find_records([tmp_path])[0]) == [run.path]
    assert find_records([tmp_path])[1] == []


@pytest.mark.parametrize("file", ["config.yaml", "status.json", "summary.json"])
@pytest.mark.parametrize("content", ["{ [", "", "[]", "null", '"text"', "\x00\x00", '{"results": 3}'])
def test_a_damaged_run_is_named_and_the_others_are_shown(make, tmp_path, file, content):
    good, bad = make(), make()
    (bad.path / file).write_text(content)
    records, skipped = find_records([tmp_path])
    if file == "config.yaml" and content == '{"results": 3}':  # a mapping is a config, if a strange one
        assert paths_of(records) == [good.path, bad.path]
        assert skipped == []
        return
    assert paths_of(records) == [good.path]
    assert len(skipped) == 1
    assert str(bad.path / file) in skipped[0]


def test_a_number_that_no_float_can_hold_is_no_figure(make, result, tmp_path):
    good, bad = make(results=[result([0.5, 0.6])]), make(results=[result([0.5, 0.6])])
    bad.summary.write_text(bad.summary.read_text().replace("0.55", "1" + 400 * "0"))
    records, [line] = find_records([tmp_path])
    assert paths_of(records) == [good.path]
    assert str(bad.summary) in line


@pytest.mark.parametrize("missing", ["config.yaml", "status.json"])
def test_half_a_run_is_named(make, tmp_path, missing):
    run = make()
    (run.path / missing).unlink()
    records, [line] = find_records([tmp_path])
    assert records == []
    assert str(run.path / missing) in line


@pytest.mark.parametrize(
    "result", [3, {}, {"name": "x"}, {"name": 1, "dataset": "a", "split": "b", "mode": "c", "accuracy": 0.5},
               {"name": "x", "dataset": "a", "split": "b", "mode": "c", "accuracy": "much"},
               {"name": "x", "dataset": "a", "split": "b", "mode": "c", "metric": "map_at_5", "accuracy": 1.0}],
)  # fmt: skip
def test_results_that_say_too_little_are_damage(make, tmp_path, result):
    run = make()
    run.summary.write_text(json.dumps({"results": [result]}))
    records, [line] = find_records([tmp_path])
    assert records == []
    assert str(run.summary) in line


@pytest.mark.parametrize(
    "damage",
    [
        {"accuracy": float("nan")}, {"accuracy": float("inf")}, {"accuracy": True}, {"accuracy": None},
        {"ci95": "x"}, {"ci95": float("nan")}, {"ci95": True}, {"episodes": "many"}, {"unit": 3}, {"protocol": []},
        {"images_hash": ["a"]},
    ],
)  # fmt: skip
def test_figures_that_are_none_are_damage(make, result, tmp_path, damage):
    good = make(results=[result([0.5, 1.0])])
    run = make(results=[{**result([0.5, 1.0]), **damage}])
    records, [line] = find_records([tmp_path])
    assert paths_of(records) == [good.path]
    assert str(run.summary) in line


@pytest.mark.parametrize("absent", ["ci95", "unit", "protocol", "episodes"])
def test_results_of_another_age_may_lack_a_field(make, result, tmp_path, absent):
    make(results=[{key: value for key, value in result([0.5, 1.0]).items() if key != absent}])
    assert len(find_records([tmp_path])[0]) == 1


def test_a_reason_that_is_no_text_is_damage(make, tmp_path):
    run = make(state="failed", reason=5)
    records, [line] = find_records([tmp_path])
    assert records == []
    assert str(run.status) in line


def test_a_date_that_is_none_is_damage(make, tmp_path):
    run = make()
    run.config.write_text("name: 2026-13-45\n")
    records, [line] = find_records([tmp_path])
    assert records == []
    assert str(run.config) in line


def test_folders_that_are_skipped_are_told_in_a_line_each(make, tmp_path):
    make().config.write_text("a:\tb: [\n x\n")
    make().config.write_text("\x1b[31m: : x\n")
    strange = tmp_path / "outputs" / "odd\x1b[31m\nname"
    strange.mkdir()
    (strange / "config.yaml").write_text("a: 1\n")
    _, skipped = find_records([tmp_path])
    assert len(skipped) == 3
    assert all(line.isprintable() for line in skipped)


def test_a_run_without_a_summary_has_no_results(make, tmp_path):
    make(state="running").summary.unlink()
    [record], _ = find_records([tmp_path])
    assert (record.state, list(record.results)) == ("running", [])


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n  c: [1, 2]\n  d: {e: null}\n",
        "a:\n- 1\n- 2\nb: x\n",
        "# a comment\na: 1\n\nb: 2\n",
        "a: &there {x: 1}\nb: *there\n",
        "{a: 1, b: {c: 2}}",
        "a: 'two\n  lines: here'\nb: |\n  text: 1\n\n  more\nc: 3\n",
        "a b: 1\n'c': 2\nd: 3\n",
        "---\na: 1\n...\n",
        "a: 1\na: 2\n",
        "a: {}\nb: []\nc:\n",
        "\"a\": 1\n  \nb: 'x\n\n  y'\n",
    ],
)
def test_sections_parsed_one_by_one_are_the_config_parsed_as_a_whole(text):
    assert parse_settings(text) == flatten(yaml.safe_load(text))


def test_sections_are_what_a_run_writes(make, config, tmp_path):
    make(config(seed=3, lr=0.25))
    [record], _ = find_records([tmp_path])
    assert record.settings == flatten(config(seed=3, lr=0.25))
    assert record.seed == 3


def test_what_is_no_mapping_is_no_config():
    assert parse_settings("") is None
    assert parse_settings("- a\n- b\n") is None
    with pytest.raises(yaml.YAMLError):
        parse_settings("a: [\nb: 1\n")


def test_places_and_absent_keys_make_no_difference():
    one = {
        "output_dir": "x",
        "dataset.root": "/a",
        "dataset.source.root": "/a",
        "dataset.runs.lake.root": "/a",
        "hardware.threads": 1,
        "hardware.deterministic": False,
        "lr": 1,
    }
    other = {"output_dir": "y", "dataset.root": "/b", "dataset.source.root": "/b", "trainer.clip_norm": None, "lr": 1}
    assert compared(one) == compared(other) == {"lr": 1}
    assert differing([one, other]) == []
    assert differing([one, {**one, "lr": 2, "choices.method": "x", "method.a": 1}]) == ["choices.method", "lr"]


def test_a_setting_below_a_choice_counts_where_runs_that_chose_alike_differ_in_it():
    runs = [
        {"choices.method": "a", "method.lr": 1, "method.own": 3},
        {"choices.method": "a", "method.lr": 2, "method.own": 3},
        {"choices.method": "b", "method.lr": 9},
    ]  # fmt: skip
    assert differing(runs) == ["choices.method", "method.lr"]
    assert differing(runs[1:]) == ["choices.method"]


def test_values_are_matched_as_they_are_written():
    assert matches(True, ["true"])
    assert matches(None, ["null"])
    assert matches([1, 2], ["[1, 2]"])
    assert matches(0.1, ["0.2", "0.1"])
    assert not matches(10, ["1"])
    assert not matches(None, ["0"])


def test_tasks_are_read_in_any_form_that_numpy_writes_and_damage_is_none(tmp_path):
    values = np.array([0.5, 0.25, 1.0], dtype=np.float32)
    for kind in (np.float32, np.float64, ">f4"):
        np.save(tmp_path / "tasks.npy", values.astype(kind))
        assert read_tasks(tmp_path / "tasks.npy").tolist() == values.tolist()
    content = (tmp_path / "tasks.npy").read_bytes()
    for damaged in (b"", content[:-1], content[:20], b"no numpy"):
        (tmp_path / "tasks.npy").write_bytes(damaged)
        assert read_tasks(tmp_path / "tasks.npy") is None
    np.save(tmp_path / "tasks.npy", np.array([0.5, np.nan], dtype=np.float32))
    assert read_tasks(tmp_path / "tasks.npy") is None
    np.save(tmp_path / "tasks.npy", np.ones((2, 2), dtype=np.float32))
    assert read_tasks(tmp_path / "tasks.npy") is None
    assert read_tasks(tmp_path / "nowhere.npy") is None


def test_a_run_whose_process_is_gone_is_told_from_one_that_runs(make, tmp_path):
    """Killed, it had no time to say so; of another machine, and of an older run, nothing can be known."""
    here = platform.node()
    gone, left, at_work, elsewhere = (make(state="running", host=host) for host in (here, here, here, "node-7"))
    older, done = make(state="running"), make(host=here)
    with left.held():
        pass
    with at_work.held():
        records, _ = find_records([tmp_path])
        assert not at_work.is_abandoned()
    states = {record.run.path: record.state for record in records}
    assert [states[run.path] for run in (gone, left, at_work, elsewhere, older, done)] == [
        "killed", "killed", "running", "running", "running", "done"
    ]  # fmt: skip
    reasons = {record.run.path: record.reason for record in records}
    assert f"fsl resume {gone.path}" in reasons[gone.path]
    assert reasons[at_work.path] is None
    assert not gone.lock.exists()  # a comparison writes nothing
