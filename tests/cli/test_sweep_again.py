"""Sweeps that are issued again: what is done already is told of however they end, and what is damaged is not done."""

import errno
import json
import math
import os
import shutil
import signal

import pytest
from sweeps import manifest_of, runs_below

from fewshot_runner.cli import session
from fewshot_runner.cli.sweeps import planning
from fewshot_runner.cli.sweeps.job import Outcome, perform
from fewshot_runner.cli.sweeps.launchers.serial import Serial
from fewshot_runner.engine.tensorboard import TensorBoard
from fewshot_runner.runs import RunFolder


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_done_is_told_although_the_sweep_is_stopped_before_its_turn(
    fsl, tiny, tmp_path, monkeypatch, elsewhere
):
    command = ["train", "-m", *tiny(), "trainer.max_steps=2", "seed=0,1,2", f"output_dir={tmp_path}"]
    assert fsl(*command).code == 0
    before = manifest_of(tmp_path)["jobs"]
    [first] = [run for run in runs_below(tmp_path) if run.read_config()["seed"] == 0]
    shutil.rmtree(first.path)
    at_work = []

    def stopped(*arguments, **options):
        at_work.extend(manifest_of(tmp_path)["jobs"])  # what a kill would leave
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "start", stopped)
    monkeypatch.setattr(Serial, "elsewhere", elsewhere)
    answer = fsl(*command)
    assert answer.code == 130, answer.err
    after = manifest_of(tmp_path)["jobs"]
    assert [at_work[0]["state"], after[0]["state"]] == ["running", "stopped"]
    assert at_work[1:] == after[1:] == before[1:]
    best = max(before[1:], key=lambda job: job["validation"])
    assert f"best on validation: fsl train {' '.join(best['overrides'][:1])}" in answer.out
    assert answer.out.count(" ± ") == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_after_a_jobs_last_step_ends_the_sweep_and_not_the_job(
    fsl, tiny, tmp_path, monkeypatch, number, code
):
    examples = TensorBoard.examples

    def interrupted(*arguments, **options):
        signal.raise_signal(number)
        examples(*arguments, **options)

    monkeypatch.setattr(TensorBoard, "examples", interrupted)
    answer = fsl("train", "-m", *tiny(), "trainer.max_steps=2", "seed=0,1", f"output_dir={tmp_path}")
    assert answer.code == code, answer.err
    assert [job["state"] for job in manifest_of(tmp_path)["jobs"]] == ["done", "pending"]
    [run] = runs_below(tmp_path)
    assert run.read_status()["state"] == "done"
    assert not list(tmp_path.glob("*.lock"))


def test_a_sweep_that_is_stopped_while_it_is_planned_leaves_its_manifest_as_it_was(fsl, tiny, tmp_path, monkeypatch):
    command = ["train", "-m", *tiny(), "trainer.max_steps=0", "seed=0,1", f"output_dir={tmp_path}"]
    assert fsl(*command).code == 0
    before, planned = manifest_of(tmp_path), []

    def stopped(config):
        planned.append(config)
        if len(planned) == 2:
            raise KeyboardInterrupt
        return planning_fingerprint(config)

    planning_fingerprint = planning.fingerprint
    monkeypatch.setattr(planning, "fingerprint", stopped)
    answer = fsl(*command)
    assert answer.code == 130
    assert "the same command goes on" in answer.err
    assert manifest_of(tmp_path) == before


def damage(run: RunFolder, **changed: object) -> None:
    """Changes the run's first result."""
    summary = run.read_summary()
    summary["results"][0] |= changed
    run.summary.write_text(json.dumps(summary))


@pytest.mark.parametrize(
    "results", [[{}], "x", True, None, {"accuracy": math.nan}, {"accuracy": None}, {"ci95": "x"}, {"name": 3}]
)
def test_a_finished_run_with_damaged_results_is_done_again(fsl, tiny, copied, started, results):
    run = RunFolder(copied())
    started.clear()  # of the run that this is a copy of
    if isinstance(results, dict):
        damage(run, **results)
    else:
        run.summary.write_text(json.dumps({"results": results}))
    output_dir = run.path.parents[1]
    command = ["train", "-m", *tiny(), "trainer.max_steps=20", "seed=0", f"output_dir={output_dir}"]
    for n_runs, said in ((2, "] done  "), (2, "] done already")):
        answer = fsl(*command)
        assert answer.code == 0, answer.err
        assert said in answer.err
        assert len(runs_below(output_dir)) == n_runs
    assert started == [("start", 0)]


@pytest.mark.parametrize("value", ["x", math.nan, True, [1]])
def test_damaged_figures_beside_the_results_are_left_out(fsl, tiny, copied, started, value):
    run = RunFolder(copied())
    started.clear()  # of the run that this is a copy of
    run.summary.write_text(json.dumps(run.read_summary() | {"best_validation": value, "seconds": value}))
    output_dir = run.path.parents[1]
    answer = fsl("train", "-m", *tiny(), "seed=0", f"output_dir={output_dir}")
    assert (answer.code, started) == (0, []), answer.err
    [job] = manifest_of(output_dir)["jobs"]
    assert (job["validation"], job["seconds"]) == (None, None)
    assert job["result"]["accuracy"] == run.read_summary()["results"][0]["accuracy"]


@pytest.mark.parametrize("steps", [("x", 5), (None, 5), (math.nan, 5), ([7], 5)])
def test_of_two_failed_runs_that_which_says_how_far_it_came_goes_on(fsl, tiny, copied, monkeypatch, steps):
    first = copied()
    runs = [RunFolder(first), RunFolder(shutil.copytree(first, first.with_name(f"0-{first.name}")))]
    for run, step in zip(runs, steps, strict=True):
        run.summary.unlink()
        run.status.write_text(json.dumps(run.read_status() | {"state": "failed", "step": step}))
    resumed = []
    resume = session.resume
    monkeypatch.setattr(session, "resume", lambda run, **_: (resumed.append(run.path.name), resume(run))[1])
    answer = fsl("train", "-m", *tiny(), "seed=0", f"output_dir={first.parents[1]}")
    assert answer.code == 0, answer.err
    assert resumed == [runs[1].path.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_more_is_the_users(fsl, tiny, trained, tmp_path, monkeypatch, number):
    trained()  # its pictures are decoded already

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    command = [*tiny(), "trainer.max_steps=0", f"output_dir={tmp_path}"]
    monkeypatch.setattr(os, "fsync", full)
    answer = fsl("train", *command)
    [run] = tmp_path.glob("glyphs-prototypical/*")
    assert answer.code == 2, answer.err
    assert answer.err.splitlines()[-1].startswith(f"fsl: {run}")
    assert os.strerror(number) in answer.err
    assert "fsl resume" in answer.err
    answer = fsl("train", "-m", *command, "seed=0,1")
    assert answer.code == 2, answer.err
    assert answer.err.splitlines()[-1].startswith(f"fsl: {tmp_path}/sweeps/seed-")
    assert f"cannot write the sweep's manifest there ({os.strerror(number)}); make room; the same com" in answer.err
    assert "Traceback" not in answer.err


def test_another_error_of_a_disk_is_shown_whole(fsl, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "start", lambda *_, **__: (tmp_path / "nothing").read_text())
    answer = fsl("train", *tiny(), f"output_dir={tmp_path}")
    assert answer.code == 1
    assert "Traceback" in answer.err


def test_a_job_that_finds_the_disk_full_fails_without_a_trace(fsl, tiny, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.pt")

    monkeypatch.setattr(session, "start", full)
    answer = fsl("train", "-m", *tiny(), "seed=0,1", f"output_dir={tmp_path}")
    assert answer.code == 3
    assert "Traceback" not in answer.err
    assert all(job["reason"].startswith("last.pt: No space left") for job in manifest_of(tmp_path)["jobs"])


def test_a_job_whose_process_is_lost_after_its_last_step_is_done(fsl, tiny, tmp_path, monkeypatch):
    def run(launcher, jobs, folder):
        for job in jobs:
            assert perform(job, quiet=True).state == "done"
            yield job, Outcome("failed", reason="its process was killed by SIGKILL (out of memory?)")

    monkeypatch.setattr(Serial, "run", run)
    answer = fsl("train", "-m", *tiny(), "trainer.max_steps=2", "seed=0,1", f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    assert "killed" not in answer.err
    jobs = manifest_of(tmp_path)["jobs"]
    assert [(job["state"], job["result"]["episodes"]) for job in jobs] == [("done", 50)] * 2
