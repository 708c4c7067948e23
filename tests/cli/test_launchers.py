"""Jobs on Slurm, with submitit's local executor in its place."""

import os
import re
import signal

import pytest
import yaml
from processes import NEEDS_PROC, PATIENCE, children, until
from sweeps import manifest_of

from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.sweeps.job import Job, fingerprint
from fewshot_runner.cli.sweeps.launchers.slurm import Task
from fewshot_runner.runs import RunFolder


def test_jobs_of_slurm_end_in_the_manifest(fsl, tiny, tmp_path):
    pytest.importorskip("submitit")
    words = ["launcher=slurm", "launcher.cluster=local", "launcher.poll_seconds=0.1"]
    command = ["train", "-m", *tiny(), "trainer.max_steps=2", *words, "episode.n_way=3,77", f"output_dir={tmp_path}"]
    answer = fsl(*command)
    assert answer.code == 3, answer.err
    good, bad = manifest_of(tmp_path)["jobs"]
    assert (good["state"], bad["state"]) == ("done", "failed")
    assert "only 8 classes" in bad["reason"]
    [run] = [RunFolder(path.parent) for path in tmp_path.glob("*/*/config.yaml")]
    assert run.read_status()["state"] == "done"
    assert good["result"]["accuracy"] == run.read_summary()["results"][0]["accuracy"]


def test_what_slurm_queues_again_goes_on_where_it_was(tmp_path, tiny, monkeypatch):
    """Slurm takes a node away: submitit asks for a checkpoint and submits the same task a second time."""
    pytest.importorskip("submitit")
    from fewshot_runner.cli import session
    from fewshot_runner.engine import train as training

    config = compose([*tiny(), f"output_dir={tmp_path}"])
    task = Task(Job(0, (), config, fingerprint(config)))
    fit = training.fit

    def taken_away(*arguments):
        monkeypatch.setattr(training, "fit", fit)
        raise SystemExit(-1)  # as submitit leaves a preempted process

    monkeypatch.setattr(training, "fit", taken_away)
    with pytest.raises(SystemExit):
        task()
    [run] = [RunFolder(path.parent) for path in tmp_path.glob("*/*/config.yaml")]
    assert run.read_status()["state"] == "running"
    resumed = []
    resume = session.resume
    monkeypatch.setattr(session, "resume", lambda folder, **_: (resumed.append(folder.path), resume(folder)))
    outcome = task.checkpoint().function()
    assert outcome.state == "done"
    assert [path.resolve() for path in resumed] == [run.path.resolve()]


@NEEDS_PROC
def test_a_job_that_is_told_to_leave_saves_first(tmp_path, tiny):
    """By submitit's own signal, in a process of its own, far from any step at which checkpoints are due."""
    submitit = pytest.importorskip("submitit")
    words = [f"trainer.{each}=100000" for each in ("max_steps", "val_every", "checkpoint_every")]
    config = compose([*tiny(), *words, "trainer.log_every=1", f"output_dir={tmp_path}"])
    executor = submitit.AutoExecutor(folder=tmp_path / "slurm", cluster="local")
    executor.update_parameters(timeout_min=10)
    job = executor.submit(Task(Job(0, (), config, fingerprint(config))))
    controller = job._process
    try:
        until(lambda: any(len(path.read_text().splitlines()) > 3 for path in tmp_path.glob("*/*/metrics.jsonl")))
        [worker] = children(controller.pid)
        os.kill(worker, signal.SIGUSR2)
        [run] = [RunFolder(path.parent) for path in tmp_path.glob("*/*/config.yaml")]
        until(lambda: re.search(r"going on from step \d+\n", run.log.read_text()))
    finally:
        controller.terminate()  # and the worker: `job.cancel` sends SIGINT, which a shell may have had ignored
        controller.wait(PATIENCE)
    [saved] = re.findall(r"going on from step (\d+)", run.log.read_text())
    assert 3 < int(saved) < 100000


def test_the_hardware_called_slurm_brings_its_launcher(fsl, tiny):
    words = [word for word in tiny() if not word.startswith("hardware")]
    answer = fsl("train", *words, "hardware=slurm", "--cfg", "job")
    assert answer.code == 0, answer.err
    assert yaml.safe_load(answer.out)["launcher"]["_target_"].endswith(".Slurm")
