"""fsl eval: further figures of a trained run, and what it refuses to measure."""

import numpy as np
import pytest
import yaml
from PIL import Image

from fewshot_runner.cli.evaluation import evaluation_config
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.runs import RunFolder


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


def test_a_run_on_centred_drawings_sees_all_others_centred_too(copied):
    run = RunFolder(copied())
    config = run.read_config()
    assert not load_trained(run).eye.standardise.centre
    config["dataset"]["centre"] = True
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert load_trained(run).eye.standardise.centre
    other = evaluation_config(config, ["dataset=folder", "dataset.path=anywhere"])
    assert other["dataset"]["centre"] is True
    del config["dataset"]["centre"]  # as an earlier version wrote it
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert not load_trained(run).eye.standardise.centre
