"""A run from its first step to its summary."""

import json
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_runner.engine.checkpoint import Checkpoints
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.fit import NotFinite
from fewshot_runner.engine.protocols.base import Evaluation, Protocol
from fewshot_runner.engine.stopping import Pruned, Stopped, StopRequest
from fewshot_runner.engine.train import Clock, median_speed
from fewshot_runner.intervals import t_interval
from fewshot_runner.methods.base import Method
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.runs import RunFolder


def breaks_after(step: int):
    """A schedule that trains well up to `step` and then tears the weights apart."""
    return lambda base, now, max_steps: base if now < step else 1000.0 * base


def test_trap_08_the_summary_is_what_best_pt_scores(
    make_experiment, make_method, world, hardware, run_folder: RunFolder, train_in
) -> None:
    experiment = make_experiment(max_steps=16, val_every=4, schedules={"lr": breaks_after(8)}, rate=0.01)
    train_in(experiment, run_folder)
    summary = run_folder.read_summary()
    assert summary["best_step"] < 16

    checkpoints = Checkpoints(run_folder.checkpoints)
    (best, _), (last, _) = checkpoints.load_best(), checkpoints.load_step()
    assert (best["step"], last["step"]) == (summary["best_step"], 16)
    scores = {}
    for name, state in (("best", best), ("last", last)):
        method = make_method(seed=99)
        method.load_state_dict(state["method"])
        scores[name] = evaluate(method, world.protocol("test"), hardware=hardware)
    first = summary["results"][0]
    assert first["accuracy"] == scores["best"].means()["accuracy"]
    assert first["accuracy"] != scores["last"].means()["accuracy"]
    assert first["ci95"] == t_interval(scores["best"].values)
    np.testing.assert_allclose(np.load(run_folder.path / first["tasks"]), scores["best"].values)


def test_trap_07_no_test_image_is_seen_and_no_test_built_before_training_has_ended(
    make_experiment, world, run_folder: RunFolder, train_in
) -> None:
    moments: list[tuple[int, int]] = []
    test_images = set(world.table("test").members.tolist())
    experiment = make_experiment(max_steps=6, val_every=2)
    build = experiment.tests

    def tests() -> dict:
        seen = set(torch.cat([index.flatten() for index in world.seen]).tolist())
        assert seen
        assert not seen & test_images
        assert (run_folder.checkpoints / "best.pt").is_file()
        moments.append((experiment.progress.step, len(run_folder.read_metrics())))
        return build()

    experiment.tests = tests
    train_in(experiment, run_folder)
    assert moments == [(6, 3 + 3)]  # once, after the last of three logged steps and three validations
    assert set(torch.cat([index.flatten() for index in world.seen]).tolist()) & test_images


def test_the_run_folder_holds_the_results(make_experiment, world, run_folder: RunFolder, train_in) -> None:
    train_in(make_experiment(), run_folder)
    status, summary = run_folder.read_status(), run_folder.read_summary()
    assert (status["state"], status["step"]) == ("done", 8)
    assert summary["steps"] == 8
    # 2 x (3 x 3 x 8) weights and so on: 9 (1 x 8 + 8 x 8) + 2 x 2 x 8 batch norm + 1 scale
    assert summary["parameters"] == 9 * 72 + 32 + 1
    assert [result["name"] for result in summary["results"]] == ["4way1shot", "4way2shot"]
    for result in summary["results"]:
        expected = {"dataset": "patterns", "split": "halves", "split_hash": "0123456789abcdef", "part": "test",
                    "n_way": 4, "n_query": 3, "episodes": 20, "episode_seed": 0, "mode": "inductive"}  # fmt: skip
        assert result | expected == result
        assert 0 <= result["accuracy"] <= 1
        assert result["ci95"] > 0
        tasks = np.load(run_folder.path / result["tasks"])
        assert tasks.shape == (20,)
        assert tasks.mean() == pytest.approx(result["accuracy"], abs=1e-6)
    steps = [(line["step"], "train" in line) for line in run_folder.read_metrics()]
    assert steps == [(2, True), (4, True), (4, False), (6, True), (8, True), (8, False)]


def test_training_learns(make_experiment, run_folder: RunFolder, train_in) -> None:
    """On patterns that a network can tell apart, the loss falls and the answers beat chance clearly."""
    train_in(make_experiment(max_steps=40, val_every=20, log_every=10), run_folder)
    losses = [line["train"]["loss"] for line in run_folder.read_metrics() if "train" in line]
    assert losses[-1] < 0.8 * losses[0]
    result = run_folder.read_summary()["results"][0]
    assert result["accuracy"] - result["ci95"] > 0.4


class Fails(Prototypical):
    """Goes wrong at a step as told: with an exception, a NaN, or a signal that comes meanwhile."""

    calls = 0
    at: int
    what: str
    stop: StopRequest

    def loss(self, batch: object) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            if self.what == "signal":
                self.stop.signal_number = 15
            elif self.what == "nan":
                return super().loss(batch) * torch.nan
            else:
                raise RuntimeError("out of paper")
        return super().loss(batch)


@pytest.mark.parametrize(
    ("what", "error", "state", "reason"),
    [
        ("signal", Stopped, "stopped", "SIGTERM"),
        ("nan", NotFinite, "failed", "loss is nan"),
        ("defect", RuntimeError, "failed", "out of paper"),
    ],
)
def test_what_ends_a_run_early_is_in_its_status(
    make_experiment, make_method, run_folder: RunFolder, train_in, what: str, error: type, state: str, reason: str
) -> None:
    stop = StopRequest()
    method = Fails(make_method().backbone, distance="euclidean")
    method.at, method.what, method.stop = 5, what, stop
    with pytest.raises(error):
        train_in(make_experiment(method=method), run_folder, stop)
    status = run_folder.read_status()
    assert status["state"] == state
    assert reason in status["reason"]
    assert not run_folder.summary.exists()
    newest, _ = Checkpoints(run_folder.checkpoints).load_step()
    assert newest["step"] == (5 if what == "signal" else 4)
    assert all(value.isfinite().all() for value in newest["method"].values())


def without_wall(run: RunFolder) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "wall"} for line in run.read_metrics()]


@pytest.mark.parametrize("at", [3, 5, 8])
def test_trap_16_a_run_that_broke_off_ends_as_one_that_did_not(
    make_experiment, make_method, tmp_path, train_in, at: int
) -> None:
    runs = []
    for name, fails_at in (("whole", -1), ("broken", at)):
        run = RunFolder.claim(tmp_path, name)
        method = Fails(make_method().backbone, distance="euclidean")
        method.at, method.what = fails_at, "defect"
        if fails_at > 0:
            with pytest.raises(RuntimeError, match="out of paper"):
                train_in(make_experiment(method=method, log_every=1), run)
            method = Fails(make_method().backbone, distance="euclidean")
            method.at = -1
        said = train_in(make_experiment(method=method, log_every=1), run)
        assert ("going on from step 4" in said) == (fails_at > 4)
        runs.append(run)
    whole, broken = runs
    assert without_wall(broken) == without_wall(whole)
    for name in ("best.pt", "step-00000004.pt", "step-00000008.pt"):
        left, right = (torch.load(run.checkpoints / name, weights_only=True) for run in runs)
        assert json.dumps(left, default=lambda t: t.tolist()) == json.dumps(right, default=lambda t: t.tolist())
    assert broken.read_summary()["results"] == whole.read_summary()["results"]


def test_a_damaged_checkpoint_is_passed_over_aloud(make_experiment, run_folder: RunFolder, train_in) -> None:
    train_in(make_experiment(), run_folder)
    results = run_folder.read_summary()["results"]
    newest = run_folder.checkpoints / "step-00000008.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    said = train_in(make_experiment(), run_folder)
    assert "passed over" in said
    assert "step-00000008.pt" in said
    assert "going on from step 4" in said
    assert run_folder.read_summary()["results"] == results


class Scripted(Protocol):
    """A validation whose figures are given, whatever the method has learned."""

    def __init__(self, *accuracies: float) -> None:
        self.remaining = iter(accuracies)

    def measure(self, method: Method, between: object) -> Evaluation:
        return Evaluation({"accuracy": np.array([next(self.remaining)])}, self.describe())

    def describe(self) -> dict:
        return {}


def test_a_damaged_best_checkpoint_leaves_no_figure_of_another_step(
    make_experiment, run_folder: RunFolder, train_in
) -> None:
    """The state of the last step is tested in its place, and the best validation was not of that."""
    train_in(make_experiment(validation=Scripted(0.6, 0.5)), run_folder)
    first = run_folder.read_summary()
    assert (first["best_step"], first["best_validation"]) == (4, 0.6)
    (run_folder.checkpoints / "best.pt").write_bytes(b"")
    train_in(make_experiment(), run_folder)
    summary = run_folder.read_summary()
    assert (summary["best_step"], summary["best_validation"]) == (8, None)


def test_what_was_asked_of_a_run_stays_when_it_is_given_up_again(
    make_experiment, run_folder: RunFolder, train_in
) -> None:
    with pytest.raises(Pruned):
        train_in(
            make_experiment(max_steps=12, validation=Scripted(0.6)), run_folder, watch=lambda step, value: step == 4
        )
    asked = {"name": "20way1shot", "step": 4, "accuracy": 0.5}
    run_folder.write_summary(run_folder.read_summary() | {"results": [asked, {**asked, "step": 3}]})
    with pytest.raises(Pruned):
        train_in(
            make_experiment(max_steps=12, validation=Scripted(0.5)), run_folder, watch=lambda step, value: step == 8
        )
    assert run_folder.read_summary()["best_step"] == 4
    assert run_folder.read_summary()["results"] == [asked]


def test_a_signal_in_a_validation_after_which_the_run_would_be_given_up_is_honoured(
    make_experiment, run_folder: RunFolder, train_in
) -> None:
    stop = StopRequest()

    def watch(step: int, value: float) -> bool:
        stop.signal_number = 2
        return True

    with pytest.raises(Stopped):
        train_in(make_experiment(), run_folder, stop, watch=watch)
    assert run_folder.read_status()["state"] == "stopped"


def test_seconds_are_those_of_all_sessions(run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 107.0, 300.0, 305.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    seconds = Clock(run_folder).seconds
    assert seconds == 7
    run_folder.write_status("stopped", step=3, seconds=seconds)
    assert Clock(run_folder).seconds == 12


def test_the_speed_of_a_run_is_the_middle_one(run_folder: RunFolder) -> None:
    assert median_speed(run_folder) is None
    lines = [{"step": step, "wall": {"images_per_second": speed}} for step, speed in enumerate([9.0, 1.0, 2.0])]
    lines.append({"step": 3, "wall": {}})  # of a validation
    run_folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert median_speed(run_folder) == 2
