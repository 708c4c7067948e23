"""What TensorBoard's own reader finds in a run folder."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fewshot_runner.engine import train as train_module
from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.runs import RunFolder

EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}


def read(run: RunFolder) -> EventAccumulator:
    events = EventAccumulator(str(run.tensorboard), size_guidance=EVERYTHING)
    events.Reload()
    return events


def points(run: RunFolder, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(run).Scalars(tag)]


@pytest.fixture
def finished(make_experiment, run_folder: RunFolder, train_in) -> RunFolder:
    train_in(make_experiment(), run_folder)
    return run_folder


def test_scalars_are_those_of_the_log(finished: RunFolder) -> None:
    lines = finished.read_metrics()
    for phase, names in (("train", ("loss", "learning_rate")), ("val", ("accuracy",))):
        for name in names:
            logged = [(line["step"], line[phase][name]) for line in lines if phase in line]
            assert len(logged) >= 2
            read_back = points(finished, f"{name}/{phase}")
            assert [step for step, _ in read_back] == [step for step, _ in logged]
            assert [value for _, value in read_back] == pytest.approx([value for _, value in logged], rel=1e-6)


def test_results_stand_at_the_best_step(finished: RunFolder) -> None:
    summary = finished.read_summary()
    for result in summary["results"]:
        assert points(finished, f"test/{result['name']}") == [
            (summary["best_step"], pytest.approx(result["accuracy"], rel=1e-6))
        ]
    assert points(finished, "accuracy/test")[0][1] == pytest.approx(summary["results"][0]["accuracy"], rel=1e-6)


def test_hyperparameters_make_one_row_in_the_runs_own_folder(finished: RunFolder) -> None:
    assert not [entry for entry in finished.tensorboard.rglob("events*") if entry.parent != finished.tensorboard]
    events = read(finished)
    parts = {}
    for tag in events.SummaryMetadata("_hparams_/experiment") and (
        "_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"
    ):  # fmt: skip
        content = events.SummaryMetadata(tag).plugin_data.content
        parts[tag.rpartition("/")[2]] = HParamsPluginData.FromString(content)
    start = parts["session_start_info"].session_start_info.hparams
    assert start["seed"].number_value == 0
    assert start["rate"].number_value == pytest.approx(0.01)
    metrics = [info.name.tag for info in parts["experiment"].experiment.metric_infos]
    assert metrics == ["accuracy/test"]
    assert set(metrics) <= set(events.Tags()["scalars"])
    assert parts["session_end_info"].session_end_info.status == 1  # success


def test_example_episodes_are_pictures(finished: RunFolder) -> None:
    events = read(finished)
    tags = events.Tags()["images"]
    assert tags == ["episodes/0", "episodes/1", "episodes/2"]
    picture = np.asarray(Image.open(io.BytesIO(events.Images(tags[0])[0].encoded_image_string)))
    # 4 rows of 1 shot and 3 queries, 12 pixels a tile, 8 between
    assert picture.shape == (4 * 12, 4 * 12 + 8, 3)


def test_embeddings_are_there_for_the_projector(finished: RunFolder, world) -> None:
    config = (finished.tensorboard / "projector_config.pbtxt").read_text()
    (folder,) = finished.tensorboard.glob("*/test")
    for name in ("tensors.tsv", "metadata.tsv", "sprite.png"):
        assert (folder / name).is_file()
        assert f"{folder.parent.name}/test/{name}" in config
    features = np.loadtxt(folder / "tensors.tsv")
    labels = (folder / "metadata.tsv").read_text().split()
    assert features.shape == (6 * 8, 8 * 2 * 2)
    assert labels == [name for name in world.table("test").names for _ in range(8)]
    # the projector's rows are embeddings of the images named beside them
    same = [np.linalg.norm(features[8 * c] - features[8 * c + 1]) for c in range(6)]
    assert min(same) > 0


@pytest.mark.parametrize("broken_at", ["in training", "in the tests"])
def test_trap_19_no_point_is_doubled_after_a_resume(
    make_experiment, run_folder: RunFolder, train_in, monkeypatch: pytest.MonkeyPatch, tmp_path, broken_at: str
) -> None:
    """Broken off at step 12 of 16, after the log but before the checkpoint, the run goes on from step 8."""
    settings = {"max_steps": 16, "val_every": 4, "checkpoint_every": 4, "log_every": 1}
    whole = RunFolder.claim(tmp_path, "whole")
    train_in(make_experiment(**settings), whole)

    class Killed(Exception):
        pass

    with monkeypatch.context() as patch:
        if broken_at == "in training":
            save_step = Checkpoints.save_step

            def dies_at_12(self, step: int, state: dict) -> None:
                if step == 12:
                    raise Killed
                save_step(self, step, state)

            patch.setattr(Checkpoints, "save_step", dies_at_12)
        else:

            def dies(*arguments, **options) -> None:
                raise Killed

            patch.setattr(train_module.TensorBoard, "finish", dies)
        with pytest.raises(Killed):
            train_in(make_experiment(**settings), run_folder)
    broken_off = int(time.time())
    while int(time.time()) == broken_off:  # event files are read in the order of the second in their names
        time.sleep(0.02)
    if broken_at == "in training":
        assert points(run_folder, "loss/train")[-1][0] == 12  # what the reader must forget
    said = train_in(make_experiment(**settings), run_folder)
    assert f"going on from step {8 if broken_at == 'in training' else 16}" in said

    assert read(run_folder).Tags()["scalars"] == read(whole).Tags()["scalars"]
    for tag in ("loss/train", "learning_rate/train", "accuracy/val", "accuracy/test", "test/4way1shot"):
        assert points(run_folder, tag) == points(whole, tag), tag
    assert [step for step, _ in points(run_folder, "loss/train")] == list(range(1, 17))
    steps = [line["step"] for line in run_folder.read_metrics() if "train" in line]
    assert steps == list(range(1, 17))
