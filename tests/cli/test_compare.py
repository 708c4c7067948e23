"""fsl compare: choosing, sorting and forcing, over folders written by hand."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

FIGURES = np.random.default_rng(0).uniform(0.5, 1.0, 40)


@pytest.fixture
def outputs(tmp_path):
    """Four runs: two methods with two seeds, tested in two ways; siamese, seed 1, has failed."""
    for number, (method, seed) in enumerate([("siamese", 0), ("siamese", 1), ("pixels", 0), ("pixels", 1)]):
        run = tmp_path / "outputs" / f"squares-{method}" / f"20260101-00000{number}-abcdef"
        (run / "tasks").mkdir(parents=True)
        config = {"choices": {"method": method}, "seed": seed, "trainer": {"clip": None, "fast": method == "siamese"}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        failed = {"state": "failed", "reason": "loss is nan"} if number == 1 else {"state": "done"}
        (run / "status.json").write_text(json.dumps({"step": 3, "seconds": 10.0 * (4 - number), **failed}))
        results = []
        for name, n_way, shift in (("5way1shot", 5, 0.0), ("20way1shot", 20, -0.2)):
            values = (FIGURES + shift - 0.1 * (method == "pixels") - 0.01 * seed).astype(np.float32)
            np.save(run / "tasks" / f"{name}.npy", values)
            results.append(
                {"name": name, "dataset": "squares", "split": "classes", "mode": "inductive", "n_way": n_way,
                 "episodes": 40, "episode_seed": 0, "metric": "accuracy", "accuracy": float(values.mean(dtype=float)),
                 "ci95": 0.01, "tasks": f"tasks/{name}.npy", "unit": "episodes"}
            )  # fmt: skip
        if number != 1:
            (run / "summary.json").write_text(json.dumps({"results": results}))
    return tmp_path / "outputs"


def rows(answer) -> list[dict]:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_runs_are_chosen_by_settings_and_state(fsl, outputs):
    def chosen(*conditions):
        words = [word for condition in conditions for word in ("--where", condition)]
        return {(row["run"].split("squares-")[1].split("/")[0], row["state"]) for row in
                rows(fsl("compare", outputs, "--json", *words))}  # fmt: skip

    assert chosen("method=siamese") == {("siamese", "done"), ("siamese", "failed")}
    assert chosen("method=siamese,pixels", "state=done") == {("siamese", "done"), ("pixels", "done")}
    assert chosen("choices.method=pixels") == {("pixels", "done")}
    assert chosen("trainer.fast=true") == {("siamese", "done"), ("siamese", "failed")}
    assert chosen("trainer.clip=null", "seed=1") == {("siamese", "failed"), ("pixels", "done")}


@pytest.fixture
def swept(outputs):
    """The same runs with settings that can be written in several ways, a number 1 to 4 in each of them."""
    for number, config in enumerate(
        sorted(outputs.glob("*/*/config.yaml"), key=lambda path: path.parent.name), start=1
    ):
        settings = {
            "widths": [8 * number, 8], "scales": [[0.002, "a"], number], "lr": number / 1000, "note": f"a,{number}",
            "flag": number == 1, "large": 2**53 + number,
        }  # fmt: skip
        config.write_text(config.read_text() + yaml.safe_dump(settings))
    return outputs


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("widths=[8,8]", [1]), ("widths=[8, 8],[16,8]", [1, 2]), ("widths=[8.0,8]", [1]), ("widths=[8]", []),
        ("widths=8", []), ("widths=(8,8)", []), ("scales=[[2e-3,a],3]", [3]), ("scales=[[2e-3,b],3]", []),
        ("lr=2e-3", [2]), ("lr=0.0020,.003", [2, 3]), ("lr=1e-3,4e-3", [1, 4]), ("lr=x", []), ("lr=[1e-3]", []),
        ("note=a,2", [2]), ("note=a", []), ("flag=1", []), ("flag=true", [1]), (f"large={2**53 + 1}", [1]),
        (f"large={2**53 + 2}.0", [2]),
    ],
)  # fmt: skip
def test_settings_are_matched_however_they_are_written(fsl, swept, condition, expected):
    answer = fsl("compare", swept, "--json", "--where", condition)
    assert answer.code == (0 if expected else 2), answer.err
    found = [int(row["run"].split("-")[-2][-1]) + 1 for row in json.loads(answer.out or "[]")]
    assert sorted(found) == expected


def test_tests_are_chosen_by_name_and_fields(fsl, outputs):
    for condition in ("test=20way1shot", "test.n_way=20"):
        table = fsl("compare", outputs, "--where", condition).out
        assert "squares classes 20way1shot" in table
        assert "squares classes 5way1shot" not in table
        assert "loss is nan" not in table


def test_unknown_keys_are_refused_with_the_nearest(refused, outputs):
    assert "did you mean method" in refused("compare", outputs, "--where", "methd=siamese")
    assert "KEY=VALUE" in refused("compare", outputs, "--where", "method")
    assert "did you mean seconds" in refused("compare", outputs, "--sort", "second")
    assert "--baseline" in refused("compare", outputs, "--baseline", "nowhere")


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_nothing_found_is_refused_with_what_was_looked_for(refused, outputs, tmp_path, form):
    for conditions in (["seed=7"], ["test=2way1shot"], ["seed=1", "state=running"], ["seed=1,7", "test.n_way=3"]):
        words = [word for condition in conditions for word in ("--where", condition)]
        assert " ".join(words) in refused("compare", outputs, *words, *form)
        assert " ".join(words) in refused("compare", outputs, *words, *form, "--baseline", "20260101-000000-abcdef")
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty: no runs" in refused("compare", tmp_path / "empty", *form)
    assert f"{tmp_path}/empty: no runs" in refused("compare", tmp_path / "empty", "--where", "method=siamese", *form)


def test_a_folder_of_damaged_runs_alone_is_refused_and_they_are_named(refused, tmp_path):
    (tmp_path / "outputs" / "half").mkdir(parents=True)
    (tmp_path / "outputs" / "half" / "config.yaml").write_text("seed: 0")
    said = refused("compare", tmp_path / "outputs")
    assert "skipped: " in said
    assert "no runs" in said


def test_rankings_are_sorted(fsl, outputs):
    def order(*words):
        table = fsl("compare", outputs, "--where", "test=5way1shot", *words).out
        return [line.split("-")[1] for line in table.splitlines() if line[2:6] == "2026"]

    assert order() == ["000000", "000002"]
    assert order("--reverse") == ["000002", "000000"]
    assert order("--sort", "seconds") == ["000002", "000000"]
    assert order("--sort", "method") == ["000002", "000000"]
    assert order("--sort", "method", "--reverse") == ["000000", "000002"]
    assert order("--sort", "result") == ["000000", "000002"]
    assert order("--sort", "result", "--reverse") == ["000002", "000000"]
    for figure in ("p", "difference"):  # which the reference has not
        assert order("--sort", figure) == order("--sort", figure, "--reverse") == ["000002", "000000"]


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_other_programs_get_the_rows_in_the_order_of_the_table(fsl, outputs, form):
    def order(*words):
        answer = fsl("compare", outputs, "--where", "test=5way1shot", form, *words)
        listed = rows(answer) if form == "--json" else csv.DictReader(io.StringIO(answer.out))
        return "".join(row["run"].split("-")[-2][-1] for row in listed)

    assert order() == "023"  # an experiment after the other, seed by seed
    assert order("--reverse") == "230"
    assert order("--sort", "seconds") == "230"
    assert order("--sort", "seconds", "--reverse") == "023"


def test_json_holds_settings_of_any_kind(fsl, outputs):
    [config] = outputs.glob("*/*0-abcdef/config.yaml")
    more = "day: 2026-01-01\nlimit: .inf\nnested: [{2026-01-02: .nan, 5: x}]\n"
    config.write_text(config.read_text() + more)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    answer = fsl("compare", outputs, "--json")
    assert answer.code == 0, answer.err
    row = json.loads(answer.out, parse_constant=refuse)[0]
    assert row["day"] == "2026-01-01"
    assert row["limit"] == "inf"
    assert row["nested"] == [{"2026-01-02": "nan", "5": "x"}]


def test_a_skipped_folder_is_told_in_a_line(fsl, outputs):
    [config] = outputs.glob("*/*0-abcdef/config.yaml")
    config.write_text("a:\tb: [\n x")
    answer = fsl("compare", outputs)
    assert answer.code == 0
    [line] = answer.err.splitlines()
    assert line.startswith(f"skipped: {config}: ")


@pytest.mark.parametrize(
    "damage", [{"ci95": "x"}, {"accuracy": float("nan")}, {"accuracy": True}, {"accuracy": float("inf")}]
)
def test_a_damaged_result_does_not_spoil_the_others(fsl, outputs, damage):
    [summary] = outputs.glob("*/*0-abcdef/summary.json")
    content = json.loads(summary.read_text())
    content["results"][0] |= damage
    summary.write_text(json.dumps(content))
    for form in ([], ["--json"]):
        answer = fsl("compare", outputs, *form)
        assert answer.code == 0, answer.err
        assert answer.err.startswith(f"skipped: {summary}: ")
        assert "000002" in answer.out


def test_a_baseline_is_what_others_are_compared_with(fsl, outputs):
    answer = fsl("compare", outputs, "--baseline", "20260101-000002-abcdef", "--json")
    row = rows(answer)[0]
    assert row["squares classes 5way1shot compared with"].endswith("20260101-000002-abcdef")
    assert row["squares classes 5way1shot difference"] == pytest.approx(0.105, abs=1e-6)


def test_a_baseline_that_the_conditions_leave_out_is_a_row_of_its_own(fsl, outputs):
    table = fsl("compare", outputs, "--where", "method=pixels", "--where", "seed=1", "--baseline", "000002-abcdef").out
    [first, second] = [line for line in table.split("20way1shot")[0].splitlines() if line[2:6] == "2026"]
    assert first.startswith("* 20260101-000002-abcdef ")
    assert second.startswith("  20260101-000003-abcdef ")
    assert "-1.00" in second


def test_a_baseline_elsewhere_is_read_as_one_more_run(fsl, outputs):
    [baseline] = outputs.glob("*/*2-abcdef")
    siamese, before = outputs / "squares-siamese", rows(fsl("compare", outputs / "squares-siamese", "--json"))
    row, *others = rows(fsl("compare", siamese, "--baseline", baseline, "--json"))
    assert row["squares classes 5way1shot difference"] == pytest.approx(0.1, abs=1e-6)
    assert row["squares classes 5way1shot compared with"] == str(baseline)
    assert [each["run"] for each in (row, *others)] == [before[0]["run"], str(baseline), before[1]["run"]]
    assert "not a run folder" in fsl("compare", siamese, "--baseline", outputs).err


@pytest.mark.usefixtures("any_bytes_are_names")
def test_a_folder_whose_name_is_no_text_is_spelt_out(fsl, outputs):
    [run] = outputs.glob("*/*0-abcdef")
    run.rename(run.with_name(os.fsdecode(b"20260101-caf\xe9")))
    for form in ([], ["--csv"], ["--json"]):
        answer = fsl("compare", outputs, *form)
        assert answer.code == 0, answer.err
        assert r"20260101-caf\udce9" in answer.out.encode().decode()


def test_forced_rankings_are_one_and_marked(fsl, outputs):
    table = fsl("compare", outputs, "--force").out
    assert table.startswith("forced: ")
    assert table.count("unpaired") > 1
    forced = [
        row.get("squares classes 20way1shot forced") for row in rows(fsl("compare", outputs, "--force", "--json"))
    ]
    assert forced == [True, True, True, None]


def test_failed_runs_stand_with_their_reason_in_every_form(fsl, outputs):
    assert "loss is nan" in fsl("compare", outputs).out
    assert rows(fsl("compare", outputs, "--json"))[-1]["reason"] == "loss is nan"
    listed = list(csv.DictReader(io.StringIO(fsl("compare", outputs, "--csv").out)))
    assert [line["state"] for line in listed] == ["done", "done", "done", "failed"]
    assert listed[-1]["reason"] == "loss is nan"


def test_comparing_imports_no_torch(outputs):
    program = (
        "import sys\nfrom fewshot_runner.cli.main import run\n"
        "assert run('compare', sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'hydra', 'scipy.stats', 'tensorboard'} & sys.modules.keys()\nassert not heavy, heavy\n"
    )
    process = subprocess.run([sys.executable, "-c", program, str(outputs)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "± " in process.stdout
