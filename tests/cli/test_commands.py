"""eval, predict, compare, list, export, doctor, tb, completion, the Python API and the wheel."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import fewshot_runner
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.cli.main import COMMANDS
from fewshot_runner.data.batch import Episode
from fewshot_runner.engine.checkpoint import load, save
from fewshot_runner.runs import RunFolder

PROGRAM = [sys.executable, "-c", "from fewshot_runner.cli.main import main; main()"]


# fsl eval


def test_eval_adds_other_figures_and_replaces_the_same(fsl, copied):
    run = RunFolder(copied())
    [own] = run.read_summary()["results"]
    assert fsl("eval", f"run={run.path}").code == 0
    assert run.read_summary()["results"] == [own]
    answer = fsl("eval", f"run={run.path}", "episode.n_shot=3", "eval.episodes=20")
    assert answer.code == 0, answer.err
    assert answer.run == run.path
    assert "3way3shot" in answer.out
    first, second = run.read_summary()["results"]
    assert first == own
    assert (second["n_shot"], second["episodes"]) == (3, 20)
    assert np.load(run.path / second["tasks"]).shape == (20,)
    fsl("eval", f"run={run.path}", "episode.n_shot=3", "eval.episodes=20")
    assert run.read_summary()["results"] == [own, second]
    fsl("eval", f"run={run.path}", "episode.n_shot=3", "eval.episodes=20", "eval.seed=1")
    assert [result["episode_seed"] for result in run.read_summary()["results"]] == [0, 0, 1]
    assert {key: value for key, value in run.read_summary().items() if key != "results"}.keys() >= {"best_step"}


def test_results_of_the_same_shape_never_share_a_file_of_tasks(fsl, copied):
    run = RunFolder(copied())
    for changes in (["eval.episodes=7"], ["eval.episodes=9"], ["episode.n_query=2"], ["episode.n_query=3"]):
        assert fsl("eval", f"run={run.path}", *changes).code == 0
    results = run.read_summary()["results"]
    assert len(results) == 5
    for result in results:
        tasks = np.load(run.path / result["tasks"])
        assert (len(tasks), tasks.mean()) == (result["episodes"], pytest.approx(result["accuracy"], abs=1e-6))


def test_eval_on_other_data_shows_them_as_the_networks_own(fsl, copied, tmp_path):
    for number in range(4 * 3):
        folder = tmp_path / "pictures" / ("train", "val", "test")[number % 3] / f"class{number}"
        folder.mkdir(parents=True)
        for copy in range(6):
            shade = np.full((30, 20 + copy, 3), 20 * number, dtype=np.uint8)
            Image.fromarray(shade).save(folder / f"{copy}.png")
    run = RunFolder(copied())
    words = ["dataset=folder", f"dataset.path={tmp_path}/pictures", "dataset.split=folders", "eval.episodes=10"]
    answer = fsl("eval", f"run={run.path}", *words)
    assert answer.code == 0, answer.err
    result = run.read_summary()["results"][-1]
    assert (result["dataset"], result["split"], result["episodes"]) == ("pictures", "folders", 10)


def test_trap_09_eval_refuses_test_classes_that_were_trained_on(refused, copied):
    run = copied()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["dataset"]["source"]["alphabets"] == 6
    # of 6 alphabets the first 4 train; of 4, the fourth is for test
    said = refused("eval", f"run={run}", "dataset.source.alphabets=4")
    assert "dataset.split=alphabets" in said
    assert "used in training" in said


@pytest.mark.slow
def test_trap_09_eval_refuses_lake_for_a_run_trained_under_vinyals(refused, omniglot_data, fsl, tiny, tmp_path):
    splits = omniglot_data / "splits" / "omniglot" / "vinyals"
    if not splits.is_dir():
        pytest.skip(f"needs the published lists, and {splits} is absent")
    small = [word for word in tiny() if "glyphs" not in word and "dataset.source" not in word]
    data = ["dataset=omniglot", f"dataset.root={omniglot_data}", "dataset.source.download=false"]
    cut = ["trainer.max_steps=0", "dataset.split=vinyals", "dataset.runs.lake.download=false"]
    answer = fsl("train", *small, *data, *cut, f"output_dir={tmp_path}/outputs")
    assert answer.code == 0, answer.err
    said = refused("eval", f"run={answer.run}", "dataset.split=lake")
    assert "dataset.split=lake" in said
    assert "vinyals" in said
    assert "flatter" in said
    assert "flatter" in refused("eval", f"run={answer.run}", "eval.protocol=runs")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["run=RUN"]),
        (["method=siamese"], ["method=siamese", "keeps its method"]),
        (["model=pixels"], ["model=pixels"]),
        (["episode.n_shots=3"], ["episode.n_shots", "episode.n_shot"]),
        (["episode.n_way=99"], ["n_way=99", "only 8 classes"]),
        (["eval.episodes=0"], ["eval.episodes=0"]),
        (["eval.protocol=runs"], ["eval.protocol=runs"]),
        (["dataset=nope"], ["dataset/nope"]),
    ],
)
def test_eval_refuses_what_makes_no_sense(refused, copied, words, names):
    said = refused("eval", *([f"run={copied()}"] if words else ["episode.n_shot=2"]), *words, lines=13)
    assert [name for name in names if name not in said] == []


# fsl predict


@pytest.fixture
def pictures(tmp_path):
    """A support folder of unequal shots, and pictures to classify: glyphs, drawn here as files."""
    from fewshot_runner.data.sources.glyphs import Glyphs

    source = Glyphs(alphabets=6, characters=8, drawers=8)
    for name, character, shots in (("one", 0, 1), ("three", 9, 3), ("two", 25, 2)):
        folder = tmp_path / "support" / name
        folder.mkdir(parents=True)
        for shot in range(shots):
            source.image(8 * character + shot).save(folder / f"{shot}.png")
    (tmp_path / "queries").mkdir()
    for number, character in enumerate((0, 9, 25)):
        source.image(8 * character + 7).save(tmp_path / "queries" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("method", ["prototypical", "siamese", "pixels"])
def test_predictions_agree_with_an_episode_made_by_hand(fsl, trained, pictures, method):
    run = trained(method)
    answer = fsl("predict", run, pictures / "queries", "--support", pictures / "support", "--json")
    assert answer.code == 0, answer.err

    def seen(path: Path) -> torch.Tensor:
        """White paper to 0, ink to 1, area averages at 16 x 16."""
        paper = Image.open(path).convert("L")
        small = paper.resize((16, 16), Image.Resampling.BOX if paper.width % 16 == 0 else Image.Resampling.LANCZOS)
        return 1 - torch.from_numpy(np.array(small)).float()[None] / 255

    from fewshot_runner.data.decode import decode, fit

    def ingested(path: Path) -> torch.Tensor:
        return 1 - torch.from_numpy(fit(decode(path, str(path)), 16, 1)).float() / 255

    names = ["one", "three", "two"]
    files = [
        (label, file) for label, name in enumerate(names) for file in sorted((pictures / "support" / name).iterdir())
    ]
    queries = sorted((pictures / "queries").iterdir())
    assert (ingested(queries[0]) - seen(queries[0])).abs().mean() < 0.05  # ink is 1 and paper 0, as in training
    episode = Episode(
        support=torch.stack([ingested(file) for _, file in files])[None],
        support_labels=torch.tensor([[label for label, _ in files]]),
        query=torch.stack([ingested(file) for file in queries])[None],
        query_labels=torch.zeros(1, 3, dtype=torch.long),
        n_way=3,
    )
    with torch.no_grad():
        expected = fewshot_runner.load(run).classify(episode)[0].softmax(-1)
    predictions = json.loads(answer.out)
    assert [prediction["image"] for prediction in predictions] == [str(file) for file in queries]
    for prediction, scores in zip(predictions, expected, strict=True):
        ranking = prediction["ranking"]
        assert [entry["class"] for entry in ranking] == [names[n] for n in scores.argsort(descending=True)]
        for entry in ranking:
            assert entry["score"] == pytest.approx(float(scores[names.index(entry["class"])]), abs=1e-5)


def test_predict_in_its_three_forms(fsl, trained, pictures):
    words = [trained(), pictures / "queries" / "0.png", "--support", pictures / "support"]
    one = json.loads(fsl("predict", *words, "--json", "--top", 1).out)
    assert [len(prediction["ranking"]) for prediction in one] == [1]
    rows = list(csv.DictReader(io.StringIO(fsl("predict", *words, "--csv", "--top", 9).out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert sum(float(row["score"]) for row in rows) == pytest.approx(1, abs=1e-5)
    assert rows[0]["class"] == one[0]["ranking"][0]["class"]
    table = fsl("predict", *words).out
    assert rows[0]["class"] in table
    assert "%" in table


def test_predict_is_not_swayed_by_the_other_pictures(fsl, trained, pictures):
    files = sorted((pictures / "queries").iterdir())
    words = ["--support", pictures / "support", "--json"]
    together = json.loads(fsl("predict", trained(), *files, *words).out)
    alone = [json.loads(fsl("predict", trained(), file, *words).out)[0] for file in files[:2]]
    for first, second in zip(together, alone, strict=False):
        assert [e["class"] for e in first["ranking"]] == [e["class"] for e in second["ranking"]]
        assert [e["score"] for e in first["ranking"]] == pytest.approx(
            [e["score"] for e in second["ranking"]], abs=1e-5
        )


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("no support", ["nowhere", "does not exist"]),
        ("one class", ["two classes"]),
        ("no picture", ["none.png", "no such picture"]),
        ("no pictures in a folder", ["no picture"]),
        ("a broken picture", ["broken.png"]),
        ("a broken example", ["broken.png"]),
        ("top 0", ["--top=0"]),
    ],
)
def test_predict_refuses_by_name(refused, trained, pictures, change, names):
    support, picture, more = pictures / "support", pictures / "queries" / "0.png", []
    if change == "no support":
        support = pictures / "nowhere"
    elif change == "one class":
        shutil.rmtree(support / "one")
        shutil.rmtree(support / "two")
    elif change == "no picture":
        picture = pictures / "none.png"
    elif change == "no pictures in a folder":
        picture = pictures / "void"
        picture.mkdir()
    elif change == "a broken picture":
        picture = pictures / "broken.png"
        picture.write_bytes(b"\x89PNG and no more")
    elif change == "a broken example":
        (support / "one" / "broken.png").write_bytes(b"\x89PNG and no more")
    else:
        more = ["--top", "0"]
    said = refused("predict", trained(), picture, "--support", support, *more)
    assert [name for name in names if name not in said] == []


# fsl compare, list, export, doctor


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


def test_compare_of_nothing_is_a_table_of_nothing(fsl, refused, tmp_path):
    (tmp_path / "none").mkdir()
    assert fsl("compare", tmp_path / "none").code == 0
    assert json.loads(fsl("compare", tmp_path / "none", "--json").out) == []
    assert fsl("compare", tmp_path / "none", "--csv").code == 0
    assert "no such folder" in refused("compare", tmp_path / "nowhere")


def test_list_shows_every_file_of_conf_with_its_purpose(fsl, refused):
    answer = fsl("list")
    assert answer.code == 0
    files = list(conf_dir().glob("*/*.yaml"))
    assert files
    for path in files:
        [line] = [line for line in answer.out.splitlines() if line.split()[:1] == [f"{path.parent.name}={path.stem}"]]
        assert len(line.split(maxsplit=1)) == 2, line
    only = fsl("list", "method").out
    assert "method=siamese" in only
    assert "dataset=" not in only
    assert "did you mean method" in refused("list", "methods")


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
        assert file.metadata()["step"] == str(best["step"])
    assert (tmp_path / "there" / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    (tmp_path / "file").write_text("")
    assert "--output" in refused("export", run, "-o", tmp_path / "file")
    assert fsl("export", run).code == 0
    assert [row["run"] for row in json.loads(fsl("compare", tmp_path / "outputs", "--json").out)] == [str(run)]


def test_doctor_finds_everything_well(fsl, elsewhere):
    answer = fsl("doctor")
    assert answer.code == 0, answer.out
    lines = [line.split() for line in answer.out.splitlines() if line.split()[:1] in (["ok"], ["no"])]
    assert [line[:2] for line in lines] == [
        ["ok", name] for name in ("packages", "hardware", "configs", "data", "cache")
    ]
    assert list(elsewhere.iterdir()) == []


def test_doctor_says_what_is_amiss(fsl, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "file"))
    answer = fsl("doctor")
    assert answer.code == 2
    assert len([line for line in answer.out.splitlines() if line.split()[:2] == ["no", "cache"]]) == 1
    assert "FSL_CACHE" in answer.out
    assert "Traceback" not in answer.err


# Processes of their own


def test_help_and_list_answer_without_torch(elsewhere):
    watch = (
        "import sys\n"
        "from fewshot_runner.cli import main\n"
        "for words in (['--help'], ['list'], ['train', '--cfg', 'job'], ['compare', '.'], ['train', '--help']):\n"
        "    sys.argv = ['fsl', *words]\n"
        "    try: main.main()\n"
        "    except SystemExit as ended: assert not ended.code, words\n"
        "    assert 'torch' not in sys.modules, words\n"
        "assert main.run('resume', ['nowhere']) == 2 and 'torch' not in sys.modules\n"
    )
    process = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for command in COMMANDS:
        assert f"fsl {command}" in process.stdout
    assert list(elsewhere.iterdir()) == []


def test_tb_listens_on_this_machine_alone_and_stops_on_sigterm(trained):
    process = subprocess.Popen(
        [*PROGRAM, "tb", str(trained()), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("TensorBoard: http://127.0.0.1:"), process.communicate()
        with urllib.request.urlopen(line.split()[1], timeout=20) as page:
            assert page.status == 200
            assert b"TensorBoard" in page.read()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
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
    ],
)
def test_completion(line, expected, absent, monkeypatch):
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    process = subprocess.run([*PROGRAM, "-sc", "query=bash"], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    words = set(process.stdout.split())
    assert expected <= words
    assert not absent & words


def test_completion_installs(elsewhere):
    process = subprocess.run([*PROGRAM, "-sc", "install=bash"], capture_output=True, text=True)
    assert process.returncode == 0
    assert "COMP_LINE" in process.stdout


def test_a_wheel_carries_conf_and_works_from_any_folder(tmp_path, elsewhere):
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", root]
    process = subprocess.run(build, capture_output=True, text=True)
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
        "print(fewshot_runner.__file__, f.conf_dir())\n"
        "assert c.compose(['method=siamese'])['choices']['method'] == 'siamese'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    process = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [str(inside / "__init__.py"), str(inside / "conf")]


def test_each_command_has_help(fsl):
    for command in COMMANDS:
        answer = fsl(command, "--help")
        assert answer.code == 0
        assert "fsl" in answer.out + answer.err
        assert len(answer.out) > 100, command


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


def test_the_python_api_refuses_as_the_program_does(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean trainer\.max_steps"):
        fewshot_runner.compose(["trainer.max_step=2"])
    with pytest.raises(ValueError, match="no such run folder"):
        fewshot_runner.load(tmp_path / "nowhere")
    with pytest.raises(AttributeError):
        _ = fewshot_runner.tain
