"""compare, export, tb, completion, the Python API and the wheel."""

import csv
import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from processes import FSL, PATIENCE, started
from safetensors import safe_open

import fewshot_runner
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.main import COMMANDS, complete
from fewshot_runner.data.decode import fit
from fewshot_runner.data.sources.glyphs import Glyphs
from fewshot_runner.engine.checkpoint import load, save
from fewshot_runner.runs import RunFolder
from fewshot_runner.settings import flatten


def test_compare_shows_differing_settings_and_results(fsl, copied, tmp_path):
    runs = [copied("prototypical"), copied("siamese")]
    answer = fsl("compare", tmp_path / "outputs", "--json")
    assert answer.code == 0, answer.err
    rows = {row["run"]: row for row in json.loads(answer.out)}
    assert rows.keys() == {str(run) for run in runs}
    for run, method in zip(runs, ("prototypical", "siamese"), strict=True):
        row, [result] = rows[str(run)], RunFolder(run).read_summary()["results"]
        assert row["method"] == method
        assert row["state"] == "done"
        assert row["glyphs alphabets 3way1shot"] == result["accuracy"]
        assert row["glyphs alphabets 3way1shot ci95"] == result["ci95"]
        assert "seed" not in row
        assert "output_dir" not in row
    table = fsl("compare", tmp_path / "outputs").out
    assert f"{100 * result['accuracy']:.2f} ± {100 * result['ci95']:.2f} %" in table
    listed = list(csv.DictReader(io.StringIO(fsl("compare", *runs, "--csv").out)))
    assert {row["method"] for row in listed} == {"prototypical", "siamese"}


def test_compare_passes_over_damaged_and_foreign_folders_by_name(fsl, copied, tmp_path):
    good, bad = copied("prototypical"), copied("siamese")
    (bad / "status.json").write_text("{")
    foreign = tmp_path / "outputs" / "other" / "program"
    foreign.mkdir(parents=True)
    (foreign / "config.yaml").write_text("not: ours\n")
    (tmp_path / "outputs" / "empty").mkdir()
    answer = fsl("compare", tmp_path / "outputs", "--json")
    assert answer.code == 0
    assert [row["run"] for row in json.loads(answer.out)] == [str(good)]
    skipped = [line for line in answer.err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 2
    assert any(str(bad / "status.json") in line for line in skipped)
    assert any(str(foreign) in line for line in skipped)


def test_a_place_to_compare_that_is_absent_is_refused(refused, tmp_path):
    assert "no such folder" in refused("compare", tmp_path / "nowhere")


def test_export_writes_the_best_weights(fsl, copied, tmp_path, refused):
    run = copied()
    best = load(run / "checkpoints" / "best.pt")
    for tensor in best["method"].values():
        tensor += 1  # so that no other checkpoint holds these weights
    save(run / "checkpoints" / "best.pt", best)
    answer = fsl("export", run, "-o", tmp_path / "there")
    assert answer.code == 0, answer.err
    assert answer.out == f"export: {tmp_path / 'there'}\n"
    with safe_open(tmp_path / "there" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(best["method"])
        for name, tensor in best["method"].items():
            assert torch.equal(file.get_tensor(name), tensor)
        about = file.metadata()
    assert about["step"] == str(best["step"])
    assert json.loads(about["facts"]) == {"image_shape": [1, 16, 16], "n_classes": 256, "n_way": 3}
    assert json.loads(about["classes"]) == [], "a method without a head has none"
    assert (tmp_path / "there" / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    (tmp_path / "file").write_text("")
    assert "--output" in refused("export", run, "-o", tmp_path / "file")
    assert fsl("export", run).code == 0
    assert [row["run"] for row in json.loads(fsl("compare", tmp_path / "outputs", "--json").out)] == [str(run)]


def test_export_to_a_full_disk_is_no_defect(refused, copied, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = copied()
    monkeypatch.setattr(os, "fsync", full)
    said = refused("export", run, "-o", tmp_path / "exported")
    assert "cannot be written" in said


def test_export_names_the_classes_in_the_order_of_the_heads_outputs(fsl, trained, tmp_path):
    run = trained("finetune")
    assert fsl("export", run, "-o", tmp_path / "there").code == 0
    with safe_open(tmp_path / "there" / "model.safetensors", "pt") as file:
        classes, facts = (json.loads(file.metadata()[key]) for key in ("classes", "facts"))
    source = Glyphs(alphabets=6, characters=8, drawers=8)
    picture = tmp_path / "picture.png"
    source.image(0).save(picture)
    everything = ["--csv", "--top", facts["n_classes"]]
    rows = list(csv.DictReader(io.StringIO(fsl("predict", run, picture, *everything).out)))
    assert len(rows) == len(classes) == facts["n_classes"]
    method = fewshot_runner.load(run)
    with torch.no_grad():
        scores = method.recognise(1 - torch.from_numpy(fit(source.image(0), 16, 1)).float()[None] / 255)[0]
    best_first = scores[[classes.index(row["class"]) for row in rows]]
    # An order but for rounding: `fsl predict` folds batch norm into its convolutions, which moves close scores.
    torch.testing.assert_close(best_first, scores.sort(descending=True).values, atol=1e-4, rtol=0)
    assert scores.max() - scores.min() > 0.1, "scores that are all alike show no order"


@pytest.mark.parametrize(("method", "words"), [("finetune", "IMAGE..."), ("prototypical", "--support DIR IMAGE...")])
def test_a_run_says_how_its_weights_predict(fsl, trained, method, words):
    """Whatever it was tested by: finetune is judged by episodes here, and has a head all the same."""
    run = trained(method)
    assert RunFolder(run).read_config()["eval"]["protocol"] == "episodes"
    answer = fsl("resume", run)
    assert answer.code == 0, answer.err
    assert f"next: fsl predict {run} {words}" in answer.out.replace("\n", " ")


def test_a_run_without_its_checkpoints_still_says_its_results(fsl, copied):
    run = copied("finetune")
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    answer = fsl("resume", run)
    assert answer.code == 0, answer.err
    assert "--support DIR" in answer.out


# Processes of their own


def test_help_and_list_answer_without_torch(elsewhere):
    watch = (
        "import sys\n"
        "from fewshot_runner.cli import main\n"
        "for words in (['--help'], ['list'], ['train', '--cfg', 'job'], ['train', '--help']):\n"
        "    sys.argv = ['fsl', *words]\n"
        "    try: main.main()\n"
        "    except SystemExit as ended: assert not ended.code, words\n"
        "    assert 'torch' not in sys.modules, words\n"
        "for words in (['resume', 'nowhere'], ['compare', '.']):\n"
        "    assert main.run(words[0], words[1:]) == 2 and 'torch' not in sys.modules, words\n"
    )
    process = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for command in COMMANDS:
        assert f"fsl {command}" in process.stdout
    assert list(elsewhere.iterdir()) == []


def test_tb_listens_on_this_machine_alone_and_stops_on_sigterm(trained):
    command = [*FSL, "tb", str(trained()), "--port", "0"]
    with started(command, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        assert line.startswith("TensorBoard: http://127.0.0.1:"), line
        with urllib.request.urlopen(line.split()[1], timeout=PATIENCE) as page:
            assert page.status == 200
            assert b"TensorBoard" in page.read()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 143


def test_tb_refuses_a_folder_that_is_none(refused):
    assert "no such folder" in refused("tb", "nowhere")


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        ("fsl ", {"train", "predict", "doctor"}, set()),
        ("fsl tr", {"train"}, {"predict"}),
        ("fsl train meth", {"method="}, {"model="}),
        ("fsl train method=", {"method=siamese", "method=pixels"}, {"method=conv4"}),
        ("fsl eval episode=", {"episode=5way5shot"}, set()),
        ("fsl resume out", set(), {"output_dir="}),  # a path, which the shell completes
    ],
)
def test_completion(line, expected, absent, monkeypatch):
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    process = subprocess.run([*FSL, "-sc", "query=bash"], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    words = set(process.stdout.split())
    assert expected <= words
    assert not absent & words


def test_completion_for_no_shell_is_refused(capsys):
    assert complete(["-sc"]) == 2
    assert "install=bash" in capsys.readouterr().err


def test_completion_takes_a_place_that_is_no_number_for_the_end(monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "fsl tra")
    monkeypatch.setenv("COMP_POINT", "x")
    assert complete(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["train"]


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_variable_counts_as_not_set(monkeypatch, value):
    for name in ("FSL_DATA", "FSL_CACHE"):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    dataset = compose(["dataset=omniglot"])["dataset"]
    assert Path(dataset["cache"]) == Path("~/.cache/fsl").expanduser()
    assert Path(dataset["source"]["root"]).name == "data"


def test_what_is_told_to_be_typed_next_survives_a_blank(fsl, tiny, tmp_path):
    answer = fsl("train", *tiny(), "trainer.max_steps=0", f"output_dir='{tmp_path}/my runs'")
    assert answer.code == 0, answer.err
    [line] = [line for line in answer.out.splitlines() if line.startswith("next: ")]
    words = shlex.split(line)
    assert words[words.index("predict") + 1] == words[-1] == str(answer.run)
    assert words[words.index("compare") + 1] == str(answer.run.parent)


def test_a_wheel_carries_conf_and_works_from_any_folder(tmp_path, elsewhere):
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", root]
    process = subprocess.run(build, capture_output=True, text=True)
    if process.returncode and "No module named pip" in process.stderr:
        pytest.skip(f"building a wheel needs pip, and {sys.executable} has none")
    if process.returncode and "hatchling" in process.stderr and "No matching distribution" in process.stderr:
        pytest.skip("building a wheel needs hatchling from the package index, which does not answer")
    assert process.returncode == 0, process.stderr
    [wheel] = (tmp_path / "wheels").glob("fewshot_runner-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    expected = {path.relative_to(root / "conf") for path in (root / "conf").rglob("*.yaml")}
    inside = tmp_path / "installed" / "fewshot_runner"
    assert {path.relative_to(inside / "conf") for path in (inside / "conf").rglob("*.yaml")} == expected
    program = (
        "import fewshot_runner, fewshot_runner.cli.compose as c, fewshot_runner.cli.conf as f\n"
        "print(fewshot_runner.__file__, f.conf_dir(), sep='\\n')\n"
        "assert c.compose(['method=siamese'])['choices']['method'] == 'siamese'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    process = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [str(inside / "__init__.py"), str(inside / "conf")]


TAKES = {
    "train": ("-m", "--dry-run", "--cfg job", "--config-dir"),
    "eval": ("run=RUN", "--config-dir"),
    "resume": ("run",),
    "predict": ("IMAGE", "--support", "--top", "--json", "--csv"),
    "compare": ("RUN or DIR", "--baseline", "--where", "--sort", "--reverse", "--force", "--csv", "--json"),
    "report": ("RUN or DIR", "--output", "--title", "--baseline", "--where", "--analyse", "--force"),
    "list": ("GROUP=CHOICE", "--config-dir"),
    "tb": ("--port",),
    "export": ("run", "--output"),
    "doctor": (),
}


def test_each_command_has_help_on_what_it_takes(fsl):
    assert list(TAKES) == list(COMMANDS)
    for command, takes in TAKES.items():
        answer = fsl(command, "--help")
        assert answer.code == 0
        assert f"fsl {command}" in answer.out
        assert [word for word in takes if word not in answer.out] == [], command


def test_the_help_of_train_shows_every_setting(fsl):
    shown = {line.split(":")[0].strip() for line in fsl("train", "--help").out.splitlines() if ":" in line}
    leaves = {key.rpartition(".")[2] for key in flatten(compose()) if not key.startswith("choices.")}
    assert len(leaves) > 60
    assert leaves - shown == set()


# From Python


def test_the_python_api_is_the_program(tiny, tmp_path):
    config = fewshot_runner.compose([*tiny(), "trainer.max_steps=2", f"output_dir={tmp_path}"])
    assert config["trainer"]["max_steps"] == 2
    run = fewshot_runner.train(config)
    assert RunFolder(run).read_status()["state"] == "done"
    method = fewshot_runner.load(run)
    assert not method.training
    best = load(run / "checkpoints" / "best.pt")["method"]
    assert all(torch.equal(best[name], tensor) for name, tensor in method.state_dict().items())
    [result] = fewshot_runner.evaluate(run, ["episode.n_shot=2", "eval.episodes=5"])
    assert (result["n_shot"], result["episodes"]) == (2, 5)
    assert RunFolder(run).read_summary()["results"][-1] == result


def test_the_python_api_works_in_another_thread(tiny, tmp_path):
    config = fewshot_runner.compose([*tiny(), "trainer.max_steps=2", f"output_dir={tmp_path}"])

    def work():
        run = fewshot_runner.train(config)
        fewshot_runner.evaluate(run, ["episode.n_shot=2", "eval.episodes=5"])
        return run

    with ThreadPoolExecutor(1) as threads:
        assert RunFolder(threads.submit(work).result()).read_status()["state"] == "done"


def test_the_python_api_refuses_as_the_program_does(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean trainer\.max_steps"):
        fewshot_runner.compose(["trainer.max_step=2"])
    with pytest.raises(ValueError, match="no such run folder"):
        fewshot_runner.load(tmp_path / "nowhere")
    with pytest.raises(AttributeError):
        _ = fewshot_runner.tain


def test_a_config_is_composed_without_the_libraries_that_train_it() -> None:
    """They take seconds to import, and `--cfg job`, a slip of the pen and completion need none of them."""
    code = "import sys, fewshot_runner.cli.compose; print([n for n in ('torch', 'numpy', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
