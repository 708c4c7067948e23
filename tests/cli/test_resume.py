"""A run that was interrupted, by whatever and wherever, ends with the bits of one that was not."""

import json
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from event_files import begin_another_second
from filelock import FileLock
from processes import FSL, PATIENCE, run_script, started, until
from sweeps import runs_below
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fewshot_runner.engine.experiment
import fewshot_runner.engine.train
from fewshot_runner.cli import session
from fewshot_runner.engine.checkpoint import load
from fewshot_runner.runs import RunFolder


def bits(path: Path) -> dict[str, object]:
    """All that has to be the same: tensors, metrics without wall time, results, the figures of each task."""
    run, found = RunFolder(path), {}

    def gather(name: str, state: object) -> None:
        if isinstance(state, torch.Tensor):
            found[name] = (state.dtype, state.shape, state.contiguous().numpy().tobytes())
        elif isinstance(state, dict | list):
            for key, value in state.items() if isinstance(state, dict) else enumerate(state):
                gather(f"{name}/{key}", value)
        else:
            found[name] = state

    for file in (run.checkpoints / "best.pt", max(run.checkpoints.glob("step-*.pt"))):
        gather(file.name, load(file))
    for number, line in enumerate(run.metrics.read_text().splitlines()):
        gather(f"metrics/{number}", {key: value for key, value in json.loads(line).items() if key != "wall"})
    gather("summary", {k: v for k, v in run.read_summary().items() if k not in ("seconds", "images_per_second")})
    for file in run.tasks.iterdir():
        found[f"tasks/{file.name}"] = file.read_bytes()
    assert len(found) > 50
    return found


def stop_at_step_13(fsl, *words: str) -> Path:
    """The folder of a run that SIGTERM has ended."""

    def at_step_13(progress, figures, add=fewshot_runner.engine.experiment.Progress.add):
        add(progress, figures)
        if progress.step == 13:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fewshot_runner.engine.experiment.Progress, "add", at_step_13)
        answer = fsl("train", *words)
    assert answer.code == 143, answer.err
    folder = next(word.removeprefix("output_dir=") for word in words if word.startswith("output_dir="))
    [config] = Path(folder).rglob("config.yaml")
    return config.parent


@pytest.fixture(scope="module")
def stopped_once(fsl, tiny, tmp_path_factory):
    """A tiny run that SIGTERM has ended after step 13."""
    folder = tmp_path_factory.mktemp("stopped")

    return stop_at_step_13(fsl, *tiny(), f"output_dir={folder}")


@pytest.fixture
def stopped(stopped_once, tmp_path):
    return Path(shutil.copytree(stopped_once, tmp_path / "outputs" / stopped_once.name))


def test_trap_16_runs_killed_at_random_moments_end_with_the_same_bits():
    process = run_script("kill_and_resume", "--kills", "10", "--method", "prototypical,siamese")
    assert process.returncode == 0, process.stdout + process.stderr
    last = process.stdout.splitlines()[-1]
    assert last.endswith("seconds")
    assert int(last.split()[0]) >= 10
    assert ", 0 differences," in last


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_process_with_a_checkpoint_of_the_very_step(name, fsl, tiny, tmp_path):
    number = signal.Signals[name]
    longer = [f"trainer.{each}=100000" for each in ("max_steps", "val_every", "checkpoint_every")]
    command = [*FSL, "train", *tiny(), *longer, "trainer.log_every=1", f"output_dir={tmp_path}"]

    def has_logged() -> bool:
        return any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl"))

    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: has_logged() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert out == ""
    assert "Traceback" not in err
    [run] = runs_below(tmp_path)
    assert err.splitlines()[-1] == f"fsl: stopped by {name}; go on with: fsl resume {run.path}"
    status = run.read_status()
    assert status["state"] == "stopped"
    assert name in status["reason"]
    assert 0 < status["step"] < 100000
    assert [file.name for file in run.checkpoints.iterdir()] == [f"step-{status['step']:08d}.pt"]


def test_a_stopped_run_goes_on_to_the_same_bits(fsl, stopped, trained):
    run = RunFolder(stopped)
    assert run.read_status()["state"] == "stopped"
    assert run.read_status()["step"] == 13
    assert max(run.checkpoints.glob("step-*.pt")).name == "step-00000013.pt"
    answer = fsl("resume", stopped)
    assert answer.code == 0, answer.err
    assert answer.run == stopped
    assert "going on from step 13" in answer.err
    assert run.read_status()["state"] == "done"
    assert bits(stopped) == bits(trained())


@pytest.mark.parametrize("moment", ["before the first step", "in validation", "in the final test"])
def test_a_signal_at_another_moment_is_as_harmless(fsl, tiny, trained, tmp_path, monkeypatch, moment):
    calls = []

    def with_signal(function, at):
        def wrapped(*arguments, **named):
            calls.append(function)
            if len(calls) == at:
                signal.raise_signal(signal.SIGINT)
            return function(*arguments, **named)

        return wrapped

    place, name, at = {
        "before the first step": (session, "describe_environment", 1),
        "in validation": (fewshot_runner.engine.train, "evaluate", 2),
        "in the final test": (fewshot_runner.engine.train, "evaluate", 3),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, with_signal(getattr(place, name), at))
        answer = fsl("train", *tiny(), f"output_dir={tmp_path}")
    assert answer.code == 130
    assert answer.out == ""
    [config] = tmp_path.rglob("config.yaml")
    assert answer.err.splitlines()[-1] == f"fsl: stopped by SIGINT; go on with: fsl resume {config.parent}"
    step = {"before the first step": 1, "in validation": 20, "in the final test": 20}[moment]
    assert RunFolder(config.parent).read_status()["state"] == "stopped"
    assert (config.parent / "checkpoints" / f"step-{step:08d}.pt").is_file()
    assert fsl("resume", config.parent).code == 0
    assert bits(config.parent) == bits(trained())


def test_a_signal_while_images_are_decoded_leaves_no_run_folder(fsl, tiny, elsewhere, monkeypatch):
    experiment = session.Builder.experiment
    monkeypatch.setattr(
        session.Builder,
        "experiment",
        lambda self, *given: signal.raise_signal(signal.SIGTERM) or experiment(self, *given),
    )
    answer = fsl("train", *tiny())
    assert answer.code == 143
    assert answer.err.splitlines()[-1] == "fsl: stopped by SIGTERM"
    assert list(elsewhere.iterdir()) == []


def test_a_resumed_run_that_is_stopped_again_says_how_to_go_on(fsl, stopped, monkeypatch):
    folder = stopped.rename(stopped.with_name("my run"))
    experiment = session.Builder.experiment
    with monkeypatch.context() as patch:
        patch.setattr(
            session.Builder,
            "experiment",
            lambda self, *given: signal.raise_signal(signal.SIGTERM) or experiment(self, *given),
        )
        answer = fsl("resume", folder)
    assert answer.code == 143
    assert answer.err.splitlines()[-1] == f"fsl: stopped by SIGTERM; go on with: fsl resume '{folder}'"


def test_a_second_signal_ends_a_run_at_once_and_it_says_how_to_go_on_as_well(fsl, tiny, tmp_path, monkeypatch):
    def twice(*arguments, **options):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fewshot_runner.engine.train, "evaluate", twice)
    answer = fsl("train", *tiny(), f"output_dir={tmp_path}")
    assert answer.code == 130
    assert answer.out == ""
    [config] = tmp_path.rglob("config.yaml")
    assert answer.err.splitlines()[-1] == f"interrupted; go on with: fsl resume {config.parent}"


def test_a_damaged_newest_checkpoint_is_passed_over_aloud(fsl, stopped, trained):
    newest = max((stopped / "checkpoints").glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-7])
    answer = fsl("resume", stopped)
    assert answer.code == 0
    assert f"passed over: {newest}" in answer.err.replace("\n", "")
    assert "going on from step 10" in answer.err
    assert bits(stopped) == bits(trained())


def test_with_every_checkpoint_damaged_it_starts_over_and_no_point_is_logged_twice(fsl, stopped, trained):
    for number, file in enumerate((stopped / "checkpoints").glob("*.pt")):
        file.write_bytes(file.read_bytes()[: 100 * number])
    begin_another_second()
    answer = fsl("resume", stopped)
    assert answer.code == 0
    assert answer.err.count("passed over") == 2
    assert bits(stopped) == bits(trained())
    events = EventAccumulator(str(stopped / "tb"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [5, 10, 15, 20]
    assert [event.step for event in events.Scalars("accuracy/val")] == [10, 20]


def test_a_run_killed_before_its_first_checkpoint_starts_over(fsl, stopped, trained):
    for file in [*(stopped / "checkpoints").iterdir(), stopped / "metrics.jsonl"]:
        file.unlink()
    (stopped / "checkpoints" / ".step-00000005.pt.0123.tmp").write_bytes(b"half")
    (stopped / ".status.json.4567.tmp").write_bytes(b"{")
    assert fsl("resume", stopped).code == 0
    assert bits(stopped) == bits(trained())
    assert list(stopped.rglob(".*.tmp")) == []


def test_a_run_killed_as_soon_as_its_config_stands_is_whole(fsl, tiny, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        write = session.atomic.write_text

        def write_and_die(path, content):
            write(path, content)
            if path.name == "config.yaml":
                raise KeyboardInterrupt

        patch.setattr(session.atomic, "write_text", write_and_die)
        answer = fsl("train", *tiny(), f"output_dir={tmp_path}")
    assert answer.code == 130
    [config] = tmp_path.rglob("config.yaml")
    assert fsl("resume", config.parent).code == 0
    assert bits(config.parent) == bits(trained())
    assert {file.name for file in config.parent.iterdir()} >= {"env.json", "overrides.yaml", "status.json"}


def test_a_damaged_best_checkpoint_that_training_does_not_replace_is_named(fsl, stopped, monkeypatch):
    best = stopped / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:-1])
    monkeypatch.setattr(fewshot_runner.engine.experiment.EarlyStopping, "improves", lambda *_: False)
    answer = fsl("resume", stopped)
    assert answer.code == 0, answer.err
    assert f"passed over: {best}" in answer.err
    assert "testing the state of step 20 instead" in answer.err
    assert RunFolder(stopped).read_summary()["best_step"] == 20


def test_a_done_run_is_reported_again_and_nothing_is_changed(fsl, copied, everything):
    run = copied()
    before = everything(run)
    answer = fsl("resume", run)
    assert answer.code == 0
    assert "done already" in answer.err
    assert "3way1shot" in answer.out
    assert answer.run == run
    assert everything(run) == before


def test_a_run_that_is_done_and_has_lost_its_results_says_so(fsl, trained, tmp_path):
    run = shutil.copytree(trained(), tmp_path / "prototypical" / "run")
    (run / "summary.json").unlink()
    answer = fsl("resume", run)
    assert answer.code == 0
    assert "no results" in answer.out


def test_what_is_refused_leaves_the_status_as_it_was(fsl, stopped):
    status = (stopped / "status.json").read_text()
    metrics = stopped / "metrics.jsonl"
    metrics.write_text("{damaged\n" + metrics.read_text())
    answer = fsl("resume", stopped)
    assert (answer.code, "damaged" in answer.err) == (2, True)
    assert (stopped / "status.json").read_text() == status


def test_two_at_once_in_one_folder_are_refused(refused, stopped):
    with FileLock(stopped / ".lock"):
        assert "another process" in refused("resume", stopped)


def test_who_merely_looks_at_a_run_keeps_nobody_from_it(stopped):
    looking = threading.Event()

    def look() -> None:
        with RunFolder(stopped).held(patience=0):
            looking.set()
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as threads:
        looked = threads.submit(look)
        assert looking.wait(PATIENCE)
        with RunFolder(stopped).held():
            assert looked.done() or looked.result() is None


def test_what_a_run_goes_on_with_is_said_and_written_down_where_it_differs(fsl, stopped, trained, copied):
    environment = json.loads((stopped / "env.json").read_text())
    before = {**environment, "versions": {**environment["versions"], "torch": "1.0"}, "threads": 7}
    (stopped / "env.json").write_text(json.dumps(before))
    answer = fsl("resume", stopped)
    assert answer.code == 0, answer.err
    said = f"torch was 1.0, is {environment['versions']['torch']}; threads was 7, is 1"
    assert f"results may differ from here on, if only in last bits: {said}" in answer.err
    after = json.loads((stopped / "env.json").read_text())
    [session_now] = after.pop("resumed")
    assert after == before
    assert (session_now["threads"], session_now["versions"]) == (1, environment["versions"])


def test_of_a_run_that_goes_on_as_it_began_nothing_is_said(fsl, stopped):
    before = (stopped / "env.json").read_bytes()
    answer = fsl("resume", stopped)
    assert (answer.code, "last bits" in answer.err) == (0, False)
    assert (stopped / "env.json").read_bytes() == before


def test_changed_data_are_refused(fsl, stopped):
    config = stopped / "config.yaml"
    content = config.read_text()
    assert content.count("characters: 8") == 1
    config.write_text(content.replace("characters: 8", "characters: 9"))
    answer = fsl("resume", stopped)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert "the data has changed" in answer.err.splitlines()[-1]
    assert "split_hash" in answer.err
    config.write_text(content)
    assert fsl("resume", stopped).code == 0


def test_further_pictures_of_the_same_classes_are_refused(fsl, pictures, tmp_path):
    run = stop_at_step_13(fsl, *pictures(range(6)), f"output_dir={tmp_path}/outputs")
    pictures(range(6, 9))
    answer = fsl("resume", run)
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err
    said = answer.err.splitlines()[-1]
    assert "images_hash" in said
    assert "put the former data back, or start a new run" in said
    for number in range(6, 9):
        for picture in (tmp_path / "pictures").glob(f"*/{number}.png"):
            picture.unlink()
    answer = fsl("resume", run)
    assert answer.code == 0, answer.err
    assert "going on from step 13" in answer.err
