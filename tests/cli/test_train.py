"""fsl train: what a run leaves behind and prints, and what Hydra answers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from divided_glyphs import asked_by
from PIL import Image
from sight_of_tests import watch

from fewshot_runner.cli import session
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.evaluation import evaluate_run
from fewshot_runner.cli.protocols import KINDS
from fewshot_runner.engine.checkpoint import load
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.runs import RunFolder


@pytest.mark.parametrize("method", ["prototypical", "siamese", "pixels"])
def test_a_run_folder_holds_what_the_design_says(trained, method):
    run = RunFolder(trained(method))
    assert re.fullmatch(rf"glyphs-{method}/\d{{8}}-\d{{6}}-[0-9a-f]{{6}}", run.name)
    config = yaml.safe_load(run.config.read_text())
    assert config["choices"]["method"] == method
    assert config["dataset"]["source"]["alphabets"] == 6
    assert "${" not in run.config.read_text()
    assert config["trainer"]["max_steps"] == 20

    assert "dataset=glyphs" in yaml.safe_load(run.overrides.read_text())
    status = run.read_status()
    assert (status["state"], status["step"]) == ("done", 20)
    assert status["started"] <= status["updated"]

    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "train" in line] == [5, 10, 15, 20]
    assert [line["step"] for line in lines if "val" in line] == [10, 20]
    assert all(line["wall"]["seconds"] >= 0 for line in lines)
    assert all({"loss", "learning_rate"} <= line["train"].keys() for line in lines if "train" in line)

    summary = run.read_summary()
    [result] = summary["results"]
    assert result.items() >= {
        "dataset": "glyphs", "split": "alphabets", "protocol": "episodes", "n_way": 3, "n_shot": 1, "n_query": 4,
        "episodes": 50, "episode_seed": 0, "mode": "inductive",
    }.items()  # fmt: skip
    assert 0 <= result["accuracy"] <= 1
    assert result["ci95"] > 0
    validations = {line["step"]: line["val"]["accuracy"] for line in lines if "val" in line}
    assert summary["best_validation"] == max(validations.values())
    assert validations[summary["best_step"]] == summary["best_validation"]
    assert summary["parameters"] >= 0
    assert {"seconds", "images_per_second"} <= summary.keys()

    tasks = np.load(run.path / result["tasks"])
    assert tasks.shape == (50,)
    assert tasks.mean() == pytest.approx(result["accuracy"], abs=1e-6)
    assert result["ci95"] == pytest.approx(
        2.0096 * tasks.std(ddof=1) / np.sqrt(50), rel=1e-3
    )  # Student's t, 49 degrees

    environment = json.loads(run.environment.read_text())
    assert environment["seed"] == 0
    assert environment["threads"] == 1
    assert {"torch", "numpy"} <= environment["versions"].keys()
    assert {"processor", "git_commit"} <= environment.keys()

    assert "best.pt" in {file.name for file in run.checkpoints.iterdir()}
    assert len(list(run.checkpoints.glob("step-*.pt"))) == 2
    assert load(run.checkpoints / "best.pt")["step"] == summary["best_step"]
    assert load(run.checkpoints / "best.pt")["split_hash"] == result["split_hash"]
    assert list(run.tensorboard.glob("events.out.tfevents.*"))
    assert "3way1shot" not in run.log.read_text()
    assert f"{method}" in run.log.read_text()
    assert "Traceback" not in run.log.read_text()
    assert list(run.path.rglob("*.tmp")) == []


@pytest.mark.parametrize("method", ["prototypical", "siamese"])
def test_trap_08_the_results_are_those_of_the_best_checkpoint_on_disk(copied, method):
    run = RunFolder(copied(method))
    [before] = run.read_summary()["results"]
    [again] = evaluate_run(run, [])
    assert again == before


FEATURES = ("model=pixels", "trainer.cache_features=true", "dataset.augment=null", "dataset.symmetries=none")


@pytest.mark.parametrize("features", [(), FEATURES], ids=["images", "features"])
@pytest.mark.parametrize("protocol", KINDS)
def test_trap_07_nothing_of_the_test_is_seen_before_training_has_ended(
    fsl, tiny, tmp_path, monkeypatch, protocol, features
):
    import fewshot_runner.engine.train as training

    seen, fit = watch(monkeypatch), training.fit
    monkeypatch.setattr(training, "fit", lambda *arguments: (fit(*arguments), seen.append("trained")))
    words = [word for word in tiny("siamese") if not (features and word.startswith("model"))]
    answer = fsl("train", *words, *features, *asked_by(protocol), f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    assert seen[0] == "trained"
    assert {*seen[1:]} == {"viewer", "protocol", "image"} - ({"viewer"} if features and protocol != "runs" else set())


def test_it_ends_with_the_table_the_next_commands_and_the_run(fsl, tiny, elsewhere):
    answer = fsl("train", *tiny(), "trainer.max_steps=1")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[-1] == f"run: {answer.run}"
    assert answer.run.parent == Path("outputs/glyphs-prototypical")
    assert f"fsl predict {answer.run}" in lines[-2]
    assert "3way1shot" in answer.out
    assert "±" in answer.out
    assert [entry.name for entry in elsewhere.iterdir()] == ["outputs"]


def test_cfg_job_shows_the_config_and_trains_nothing(fsl, tiny, elsewhere):
    answer = fsl("train", *tiny(), "method.optimizer.lr=0.125", "--cfg", "job")
    assert answer.code == 0
    shown = yaml.safe_load(answer.out)
    assert shown["method"]["optimizer"]["lr"] == 0.125
    assert "hydra" not in shown
    assert list(elsewhere.iterdir()) == []


def test_dry_run_shows_everything_and_trains_nothing(fsl, tiny, elsewhere, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere.parent))
    answer = fsl("train", *tiny(), "--dry-run")
    assert answer.code == 0, answer.err
    assert "681 parameters" in answer.out  # 9 * 8 + 2 * 8 + 9 * 8 * 8 + 2 * 8 weights, and the scale
    assert "1 x 16 x 16" in answer.out
    assert "max_steps 20" in answer.out
    [picture] = elsewhere.parent.glob("fsl-episode-*.png")
    assert str(picture) in answer.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(elsewhere.iterdir()) == []
    assert "run:" not in answer.out


def test_each_dry_run_draws_into_a_new_file(fsl, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "fsl-episode.png").mkdir()  # another user's, where nothing can be written
    pictures = []
    for _ in range(2):
        answer = fsl("train", *tiny(), "--dry-run")
        assert answer.code == 0, answer.err
        [picture] = re.findall(r"an episode as validation draws it: (\S+)", answer.out)
        pictures.append(Path(picture))
    assert len(set(pictures)) == 2
    for picture in pictures:
        assert re.fullmatch(r"fsl-episode-.+\.png", picture.name)
        assert Image.open(picture).size == (5 * 20 + 8, 3 * 20)  # 1 shot and 4 queries of 3 classes, framed, and a gap


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["eval.protocol=verification", "eval.pairs=40"], ["protocol verification", "pairs 40", "part val"]),
        (["eval.protocol=closed_set", "episode=closed_set", "dataset.split=images"],
         ["protocol closed_set", "n_shot all", "part val"]),
        (["eval.protocol=retrieval", "dataset.split=images", "trainer.monitor=map_at_5"],
         ["protocol retrieval", "gallery ", "probes ", "part val"]),
    ],
)  # fmt: skip
def test_dry_run_says_what_validation_asks_where_it_draws_no_example(
    fsl, pictures, tmp_path, monkeypatch, overrides, words
):
    (tmp_path / "drawn").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "drawn"))
    monkeypatch.setattr(session, "MOST_IMAGES", 20)
    own = [word for word in pictures(range(5)) if not word.startswith("episode.")]
    answer = fsl("train", *own, *overrides, "--dry-run")
    assert answer.code == 0, answer.err
    [line] = [line for line in answer.out.splitlines() if line.startswith("validation, ")]
    assert [word for word in words if word not in line] == []
    assert "None" not in line
    assert list((tmp_path / "drawn").iterdir()) == []


def test_a_config_dir_of_the_users_own_adds_choices(fsl, tiny, tmp_path):
    (tmp_path / "mine" / "episode").mkdir(parents=True)
    (tmp_path / "mine" / "episode" / "two.yaml").write_text(
        "# Two classes\nn_way: 2\nn_shot: 1\nn_query: 3\nwithin_group: false\n"
    )
    overrides = [word for word in tiny() if not word.startswith("episode.")]
    place = f"--config-dir={tmp_path}/mine"
    answer = fsl("train", place, *overrides, "episode=two", "trainer.max_steps=0", f"output_dir={tmp_path}/runs")
    assert answer.code == 0, answer.err
    assert RunFolder(answer.run).read_summary()["results"][0]["n_way"] == 2
    assert "episode=two" in fsl("eval", f"run={answer.run}", "episode=two").err  # without the folder
    for option in ([place], ["--config-dir", tmp_path / "mine"]):
        again = fsl("eval", f"run={answer.run}", *option, "episode=two", "eval.seed=5")
        assert again.code == 0, again.err
        assert RunFolder(answer.run).read_summary()["results"][-1]["n_way"] == 2
    listed = fsl("list", "episode", "--config-dir", tmp_path / "mine")
    assert "episode=two" in listed.out
    assert "Two classes" in listed.out


def test_early_stopping_ends_training_and_keeps_the_best(fsl, tiny, tmp_path, monkeypatch):
    import fewshot_runner.engine.train as training

    figures, evaluate = iter([0.5, 0.75, 0.75, 0.5, 0.5]), training.evaluate

    def scripted(*arguments, **named):
        return replace(evaluate(*arguments, **named), figures={"accuracy": np.full(3, next(figures))})

    monkeypatch.setattr(training, "evaluate", scripted)
    overrides = ["trainer.val_every=2", "trainer.patience=2"]
    answer = fsl("train", *tiny(), *overrides, f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    run = RunFolder(answer.run)
    assert run.read_status()["step"] == 8
    assert load(run.checkpoints / "best.pt")["step"] == 4


def test_off_a_terminal_there_are_no_control_characters(trained, fsl, tiny, tmp_path):
    answer = fsl("train", *tiny(), "trainer.max_steps=1", f"output_dir={tmp_path}")
    assert "\x1b" not in answer.out + answer.err
    assert "\x1b" not in RunFolder(answer.run).log.read_text()


def test_images_are_decoded_while_the_bar_shows_also_where_python_leaves_assertions_out(tiny):
    optimised = {"__name__": "optimised"}
    exec(compile(Path(session.__file__).read_text(), session.__file__, "exec", optimize=1), optimised)
    for build in (session.build, optimised["build"]):
        with StopRequest() as stop:
            assert "dataset" in vars(build(compose(tiny()), Narrator(), stop))
