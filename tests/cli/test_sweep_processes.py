"""Sweeps whose processes are stopped and killed."""

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from processes import FSL, NEEDS_PROC, PATIENCE, alive, children, started, until
from sweeps import has_begun, manifest_of, runs_below

from fewshot_runner.cli.sweeps.launchers import parallel

ENDLESS = ["trainer.max_steps=100000", "trainer.checkpoint_every=100000", "trainer.log_every=100000"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("launcher", [["launcher=serial"], ["launcher=parallel", "launcher.workers=2"]])
def test_a_signal_stops_the_sweep_which_goes_on_later(tiny, tmp_path, number, code, launcher):
    command = ["train", "-m", *tiny(), *ENDLESS, "seed=0,1,2", f"output_dir={tmp_path}", *launcher]
    with started([*FSL, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: any(map(has_begun, runs_below(tmp_path))))
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert "the same command goes on" in err
    assert "fsl resume" not in out + err  # a job has no words of its own
    assert "Traceback" not in err
    assert "sweep: " in out.splitlines()[-1]
    states = [job["state"] for job in manifest_of(tmp_path)["jobs"]]
    assert "stopped" in states
    assert states[2] == "pending"
    for run in runs_below(tmp_path):
        assert run.read_status()["state"] == "stopped"
        assert list(run.checkpoints.glob("step-*.pt"))


def server_of(sweep: int) -> int:
    """The process that a sweep's workers are forks of."""
    [server] = [child for child in children(sweep) if "forkserver" in Path(f"/proc/{child}/cmdline").read_text()]
    return server


@NEEDS_PROC
def test_workers_share_the_threads_and_end_with_a_parent_that_is_killed(tiny, tmp_path):
    words = [word for word in tiny() if not word.startswith("hardware.threads")]
    parallel = ["launcher=parallel", "launcher.workers=2"]
    command = ["train", "-m", *words, *ENDLESS, *parallel, "seed=0,1,2", f"output_dir={tmp_path}"]
    with started([*FSL, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: sum(map(has_begun, runs_below(tmp_path))) == 2)
        server = server_of(process.pid)
        workers = children(server)
        assert len(workers) == 2
    until(lambda: not any(map(alive, [server, *workers])))
    cores = len(os.sched_getaffinity(0))
    for run in runs_below(tmp_path):
        assert run.read_config()["hardware"]["threads"] == max(1, cores // 2)
        assert run.read_status()["state"] == "stopped"  # they saved their runs first


@NEEDS_PROC
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_fails_its_job_alone(tiny, tmp_path, by):
    words = [*tiny(), "launcher=parallel", "launcher.workers=1", f"output_dir={tmp_path}"]
    steps = ["trainer.max_steps=100000,4", "trainer.log_every=1000000", "trainer.checkpoint_every=100000"]
    with started([*FSL, "train", "-m", *words, *steps], stdout=subprocess.PIPE) as process:
        until(lambda: any(map(has_begun, runs_below(tmp_path))))
        [worker] = children(server_of(process.pid))
        os.kill(worker, by)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert by.name in " ".join(out.split())
    [failed, done] = manifest_of(tmp_path)["jobs"]
    assert (failed["state"], done["state"]) == ("failed", "done")
    [killed] = [run for run in runs_below(tmp_path) if run.read_config()["trainer"]["max_steps"] == 100000]
    assert failed["run"].endswith(killed.name)
    assert not list(tmp_path.glob(".*"))
    status = killed.read_status()
    assert (status["state"], by.name in status["reason"]) == ("failed" if by == signal.SIGKILL else "stopped", True)


def report_on(connection: Connection) -> None:
    connection.send((parallel.OF_JOBS in sys.modules, os.environ[parallel.LIBRARIES_ASK]))


@NEEDS_PROC
def test_workers_have_imported_everything_in_a_process_without_threads():
    forkserver._forkserver._stop()  # that of another test
    parallel.Parallel(workers=2, threads=1).prepare()
    ours, theirs = parallel.CONTEXT.Pipe()
    worker = parallel.CONTEXT.Process(target=report_on, args=(theirs,))
    worker.start()
    theirs.close()  # so that a worker that dies says nothing, rather than being waited for
    assert ours.poll(PATIENCE)
    assert ours.recv() == (True, "1")
    status = Path(f"/proc/{server_of(os.getpid())}/status").read_text()
    assert "Threads:\t1\n" in status
    worker.join()


def test_closed_streams_are_no_reason_to_fail(tiny, tmp_path):
    """As in a daemon: nobody reads what the sweep says, and no file takes the place of a stream."""
    command = [*FSL, "train", "-m", *tiny(), "trainer.max_steps=2", "seed=0,1", f"output_dir={tmp_path}"]
    program = "import os, sys; [os.close(number) for number in (0, 1, 2)]; os.execv(sys.argv[1], sys.argv[1:])"
    ended = subprocess.run([sys.executable, "-c", program, *command], check=False)
    assert ended.returncode == 0
    assert [job["state"] for job in manifest_of(tmp_path)["jobs"]] == ["done", "done"]
