"""What TensorBoard's own reader finds in a run folder."""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from class_tables import make_table
from event_files import begin_another_second
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams.api_pb2 import Experiment, ListSessionGroupsRequest, SessionGroup
from tensorboard.plugins.hparams.backend_context import Context as HParamsContext
from tensorboard.plugins.hparams.list_session_groups import Handler
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

from fewshot_runner.engine import train as train_module
from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.pictures import episode_picture
from fewshot_runner.engine.tensorboard import TensorBoard, projected
from fewshot_runner.methods.base import Method
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


class Board:
    """TensorBoard's own plugins over a folder of runs, as its server calls them."""

    def __init__(self, folder: Path) -> None:
        multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0}).AddRunsFromDirectory(str(folder))
        multiplexer.Reload()
        provider = MultiplexerDataProvider(multiplexer, str(folder))
        flags = argparse.Namespace(generic_data="true")
        plugins: dict[str, object] = {}
        context = TBContext(data_provider=provider, plugin_name_to_instance=plugins, flags=flags)
        plugins["scalars"] = ScalarsPlugin(context)
        self.charts = CustomScalarsPlugin(context)
        self.hparams = HParamsContext(context)

    def layout(self) -> dict[str, dict[str, list[str]]]:
        """Tags by chart and category."""
        layout = json.loads(self.charts.layout_impl(RequestContext(), ""))
        return {
            category["title"]: {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
            for category in layout["category"]
        }

    def points(self, run: RunFolder, tags: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """What the chart of `tags` draws of a run, by tag."""
        lines: dict[str, list] = {}
        for tag in tags:
            lines |= self.charts.scalars_impl(RequestContext(), f"{run.name}/tb", tag, "")["tag_to_events"]
        return {tag: [(step, value) for _, step, value in drawn] for tag, drawn in lines.items()}

    def rows(self) -> list[SessionGroup]:
        """The rows of the HPARAMS tab, their columns all those that there are."""
        metadata = self.hparams.hparams_metadata(RequestContext(), "")
        experiment = self.columns()
        request = ListSessionGroupsRequest(
            start_index=0, slice_size=100, allowed_statuses=[1, 2, 3, 0],
            col_params=[{"metric": info.name} for info in experiment.metric_infos],
        )  # fmt: skip
        handler = Handler(RequestContext(), self.hparams, "", request)
        assert len(metadata) == len(handler.run().session_groups)
        return list(handler.run().session_groups)

    def columns(self) -> Experiment:
        metadata = self.hparams.hparams_metadata(RequestContext(), "")
        return self.hparams.experiment_from_metadata(RequestContext(), "", True, metadata, [])


def test_hyperparameters_make_a_row_a_run_with_every_setting_and_the_test_figure(
    make_experiment, run_folder: RunFolder, train_in, tmp_path: Path
) -> None:
    """The second run has a setting that the first has not, and lacks one."""
    runs = [run_folder, RunFolder.claim(tmp_path, "patterns-siamese")]
    settings = [
        {"method": "prototypical", "rate": 0.01, "clip": None},
        {"method": "siamese", "rate": 0.1, "fast": True},
    ]
    for run, given in zip(runs, settings, strict=True):
        train_in(make_experiment(), run, settings=given)
    assert not [entry for run in runs for entry in run.tensorboard.rglob("events*") if entry.parent != run.tensorboard]
    board = Board(tmp_path)
    assert {info.name for info in board.columns().hparam_infos} == {"method", "rate", "clip", "fast"}
    rows = {row.hparams["method"].string_value: row for row in board.rows()}
    assert len(rows) == 2
    for run, given in zip(runs, settings, strict=True):
        row = rows[given["method"]]
        assert [session.name for session in row.sessions] == [f"{run.name}/tb"]
        assert row.sessions[0].status == 1  # success
        assert row.hparams["rate"].number_value == pytest.approx(given["rate"])
        figures = {value.name.tag: value.value for value in row.metric_values}
        assert figures["accuracy/test"] == pytest.approx(run.read_summary()["results"][0]["accuracy"], rel=1e-6)
    assert rows["prototypical"].hparams["clip"].string_value == "null"
    assert rows["siamese"].hparams["fast"].string_value == "true"


def test_training_and_validation_share_charts_in_which_all_runs_stand(
    make_experiment, run_folder: RunFolder, train_in, tmp_path: Path
) -> None:
    other = RunFolder.claim(tmp_path, "patterns-siamese")
    for run in (run_folder, other):
        train_in(make_experiment(), run)
    board = Board(tmp_path)
    [charts] = board.layout().values()
    assert "training loss and validation figure" in charts
    for run in (run_folder, other):
        lines = board.points(run, charts["training loss and validation figure"])
        assert set(lines) == {"loss/train", "accuracy/val"}
        assert lines == {tag: points(run, tag) for tag in lines}
        assert set(board.points(run, charts["validation and test figure"])) == {"accuracy/val", "accuracy/test"}


def test_another_figure_than_accuracy_is_not_called_so(run_folder: RunFolder) -> None:
    board = TensorBoard(run_folder, resumed_after=None)
    board.hyperparameters({"seed": 0})
    board.scalar("map_at_5/val", 0.5, 3)
    board.begin_tests()
    board.finish([{"name": "retrieval", "metric": "map_at_5", "map_at_5": 0.25}], step=3)
    board.close()
    assert points(run_folder, "map_at_5/test") == [(3, 0.25)]
    assert "accuracy/test" not in read(run_folder).Tags()["scalars"]
    board = Board(run_folder.path.parent.parent)
    [charts] = board.layout().values()
    assert board.points(run_folder, charts["training loss and validation figure"]) == {"map_at_5/val": [(3, 0.5)]}


def best_method(run: RunFolder, make_method) -> Method:
    method = make_method(seed=99).eval()
    method.load_state_dict(Checkpoints(run.checkpoints).load_best()[0]["method"])
    return method


def test_example_episodes_are_pictures_with_the_best_weights_answers(finished: RunFolder, world, make_method) -> None:
    events = read(finished)
    tags = events.Tags()["images"]
    assert tags == ["episodes/0", "episodes/1", "episodes/2"]
    picture = np.asarray(Image.open(io.BytesIO(events.Images(tags[0])[0].encoded_image_string)))
    # 4 rows of 1 shot and 3 queries, 12 pixels a tile, 8 between
    assert picture.shape == (4 * 12, 4 * 12 + 8, 3)
    episode = world.protocol("test").draw(0, 1).map(world.viewer)
    answers = best_method(finished, make_method).classify(episode).argmax(-1)
    np.testing.assert_array_equal(picture, episode_picture(episode, answers))


def test_the_projector_has_the_embeddings_of_the_images_named_beside_them(
    finished: RunFolder, world, make_method
) -> None:
    config = (finished.tensorboard / "projector_config.pbtxt").read_text()
    (folder,) = finished.tensorboard.glob("*/test")
    for name in ("tensors.tsv", "metadata.tsv", "sprite.png"):
        assert (folder / name).is_file()
        assert f"{folder.parent.name}/test/{name}" in config
    features = np.loadtxt(folder / "tensors.tsv")
    labels = (folder / "metadata.tsv").read_text().split()
    assert features.shape == (6 * 8, 8 * 2 * 2)
    assert labels == [name for name in world.table("test").names for _ in range(8)]
    best = best_method(finished, make_method)
    index = torch.from_numpy(world.table("test").members)
    with torch.no_grad():
        np.testing.assert_allclose(features, best.embed(world.viewer(index)).flatten(1), rtol=1e-4, atol=1e-5)


def test_the_projector_shows_whole_classes_from_all_over_the_table() -> None:
    """Evenly spread images of many classes would be about one of each, in which no cluster can be seen."""
    table = make_table({"all": [20] * 659})
    labels = table.image_labels[projected(table)]
    shown, counts = np.unique(labels, return_counts=True)
    assert len(shown) == 20
    assert set(counts) == {15}
    assert (shown[0], shown[-1]) == (0, 658)
    assert set(np.diff(shown)) <= {34, 35}
    few = make_table({"all": [400, 3, 100, 400, 400]})  # 60 of each, and all of a small one
    assert np.bincount(few.image_labels[projected(few)]).tolist() == [60, 3, 60, 60, 60]
    assert projected(make_table({"all": [2]})).tolist() == [0, 1]


@pytest.mark.parametrize("broken_at", ["in training", "in the tests", "after the tests"])
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

            target, name = {
                "in the tests": (train_module.TensorBoard, "finish"),
                "after the tests": (train_module, "write_summary"),
            }[broken_at]
            patch.setattr(target, name, dies)
        with pytest.raises(Killed):
            train_in(make_experiment(**settings), run_folder)
    begin_another_second()
    if broken_at == "in training":
        assert points(run_folder, "loss/train")[-1][0] == 12  # what the reader must forget
    said = train_in(make_experiment(**settings), run_folder)
    assert f"going on from step {8 if broken_at == 'in training' else 16}" in said

    board = Board(tmp_path)
    assert [len(charts) for charts in board.layout().values()] == [3]
    assert len(board.rows()) == 2
    for tags in (["loss/train"], ["accuracy/(val|test)"]):
        assert board.points(run_folder, tags) == board.points(whole, tags)
    assert sorted(read(run_folder).Tags()["scalars"]) == sorted(read(whole).Tags()["scalars"])
    for tag in ("loss/train", "learning_rate/train", "accuracy/val", "accuracy/test", "test/4way1shot"):
        assert points(run_folder, tag) == points(whole, tag), tag
    assert [step for step, _ in points(run_folder, "loss/train")] == list(range(1, 17))
    events, expected = read(run_folder), read(whole)
    for tag in expected.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [event.step for event in expected.Images(tag)]
    projector = "projector_config.pbtxt"
    assert (run_folder.tensorboard / projector).read_text() == (whole.tensorboard / projector).read_text()
    steps = [line["step"] for line in run_folder.read_metrics() if "train" in line]
    assert steps == list(range(1, 17))
