"""One job of a sweep beside others that wait for the same run."""

import io
import shutil
import signal
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from fewshot_runner.cli import session
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.sweeps import job as jobs
from fewshot_runner.cli.sweeps.job import Job, find_run, fingerprint, perform
from fewshot_runner.cli.user_code import _digest, code_of
from fewshot_runner.engine.stopping import Stopped
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.runs import RUNNING, RunFolder


def interrupted_job(tiny, trained, tmp_path: Path) -> tuple[Job, RunFolder]:
    """A job, and its run as it was left before the last step."""
    original = trained()
    run = RunFolder(Path(shutil.copytree(original, tmp_path / original.parent.name / original.name)))
    run.write_status(RUNNING, step=15, seconds=1.0)
    max(run.checkpoints.glob("step-*.pt")).unlink()
    config = compose([*tiny(), f"output_dir={tmp_path}"])
    return Job(0, (), config, fingerprint(config)), run


def test_who_comes_second_to_a_run_waits_for_it(tiny, trained, tmp_path, monkeypatch):
    """Two sweeps wait for one run: this one sees it free, and the other takes it before this one does."""
    job, run = interrupted_job(tiny, trained, tmp_path)
    other, resume, events = FileLock(run.lock), session.resume, []

    def resume_second(folder, **options):
        if not events:
            other.acquire()
        events.append("resume")
        return resume(folder, **options)

    def sleep(seconds):
        events.append("sleep")
        other.release()

    monkeypatch.setattr(session, "resume", resume_second)
    monkeypatch.setattr(jobs, "time", SimpleNamespace(sleep=sleep))  # others sleep as well
    outcome = perform(job, quiet=True)
    assert (outcome.state, outcome.run) == ("done", run.path), outcome
    assert events == ["resume", "sleep", "resume"]
    assert run.read_status()["state"] == "done"


def test_a_run_that_another_process_brings_to_its_end_is_taken_as_it_is(tiny, trained, tmp_path, monkeypatch):
    job, run = interrupted_job(tiny, trained, tmp_path)
    other, waits = FileLock(run.lock), []
    other.acquire()

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            run.write_status("done", step=20, seconds=2.0)
            other.release()

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    before = max(run.checkpoints.glob("step-*.pt"))
    outcome = perform(job, quiet=True)
    assert (outcome.state, outcome.run) == ("done", run.path), outcome
    assert len(waits) == 3
    assert max(run.checkpoints.glob("step-*.pt")) == before  # nothing was trained


def test_of_two_sweeps_that_begin_with_the_same_job_one_trains_it(tiny, tmp_path, monkeypatch):
    """The other begins while this one reads its data, and so has no run folder yet."""
    config = compose([*tiny(), f"output_dir={tmp_path}"])
    job, start, starts, others = Job(0, (), config, fingerprint(config)), session.start, [], []
    other = threading.Thread(target=lambda: others.append(perform(job, quiet=True)))

    def read_data_first(*arguments, **options):
        starts.append(arguments)
        if other.ident is None:
            other.start()
            other.join(timeout=1.0)
            assert other.is_alive()
        return start(*arguments, **options)

    monkeypatch.setattr(session, "start", read_data_first)
    outcome = perform(job, quiet=True)
    other.join()
    assert [outcome.state, len(starts)] == ["done", 1], outcome
    assert [each.run for each in others] == [outcome.run]
    assert not list(tmp_path.glob(".*"))


class Told(io.StringIO):
    """A stream that says when a line was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = threading.Event()

    def flush(self) -> None:
        self.flushed.set()


def test_who_waits_for_another_sweep_says_so(tiny, tmp_path, monkeypatch):
    config = compose([*tiny(), f"output_dir={tmp_path}"])
    job, held, told = Job(0, (), config, fingerprint(config)), threading.Event(), Told()
    monkeypatch.setattr(sys, "stderr", told)

    def hold():
        with FileLock(jobs.lock_of(job)):
            held.set()
            told.flushed.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with jobs.alone_with(job):
        other.join()
    assert told.getvalue() == "another sweep is at work on this job; its result is waited for\n"
    with jobs.alone_with(job):
        assert len(told.getvalue().splitlines()) == 1


class Diverged(RunFailed):
    exit_code = 4


@pytest.mark.parametrize("layout", ["package", "module"])
def test_a_run_of_other_code_of_the_users_is_not_this_jobs(tiny, fsl, tmp_path, monkeypatch, layout):
    """The settings are the same, and the figures are those of a network that is no more."""
    file = tmp_path / (f"own_{layout}/network.py" if layout == "package" else f"own_{layout}.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("from fewshot_runner.models.conv4 import Conv4\n\n\nclass Network(Conv4):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    target = f"own_{layout}.network.Network" if layout == "package" else f"own_{layout}.Network"
    words = [*tiny(), f"model._target_={target}", f"trusted_packages=[own_{layout}]", f"output_dir={tmp_path}/runs"]
    answer = fsl("train", *words, "trainer.max_steps=0")
    assert answer.code == 0, answer.err
    config = compose([*words, "trainer.max_steps=0"])
    job = Job(0, (), config, fingerprint(config))
    assert find_run(job)[1] == "done"
    run, before = RunFolder(answer.run), file.read_text()
    file.write_text(before + "\n# mended\n")
    assert find_run(job)[1] == "done", "this process has imported the former"
    _digest.cache_clear()  # as another process begins
    assert find_run(job) == (None, None)
    run.write_status("stopped", step=0, seconds=1.0)
    resumed = fsl("resume", run.path)
    assert resumed.code == 0
    assert "results may differ from here on, if only in last bits: code was " in resumed.err
    assert "results may differ from here on" in run.log.read_text()
    for content in (before, file.read_text()):  # of neither alone
        file.write_text(content)
        _digest.cache_clear()
        assert find_run(job) == (None, None)


def test_code_is_told_apart_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as where a program of the user's own is run
    digests = {code_of([name]) for name in ("sys", "os", "__main__", "not_there")}
    assert len(digests) == 4
    for content in ("a = 1", "a = 2"):
        archive = tmp_path / f"{content[-1]}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("zipped/__init__.py", content)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(archive)
            _digest.cache_clear()
            digests.add(code_of(["zipped"]))
    (tmp_path / "compiled").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for content in (b"one", b"two"):
        (tmp_path / "compiled/__init__.pyc").write_bytes(content)
        _digest.cache_clear()
        digests.add(code_of(["compiled"]))
    assert len(digests) == 8
    assert code_of([]) is None


@pytest.mark.parametrize(
    ("error", "state", "code", "reason"),
    [
        (KeyboardInterrupt(), "stopped", 130, "interrupted"),
        (Stopped(signal.SIGTERM), "stopped", 143, "stopped by SIGTERM"),
        (Diverged("loss is nan"), "failed", None, "loss is nan"),
        (UserError("seed=a"), "failed", None, "seed=a"),
        (RuntimeError("bad luck"), "failed", None, "RuntimeError: bad luck"),
    ],
)
def test_how_a_job_ended_follows_from_what_ended_it(tiny, tmp_path, monkeypatch, error, state, code, reason):
    config = compose([*tiny(), f"output_dir={tmp_path}"])

    def ended(*arguments, **options):
        raise error

    monkeypatch.setattr(session, "start", ended)
    outcome = perform(Job(0, (), config, fingerprint(config)), quiet=True)
    assert (outcome.state, outcome.run, outcome.reason) == (state, None, reason)
    assert code in (None, outcome.exit_code)
    assert ("Traceback" in outcome.trace) == isinstance(error, RuntimeError)


def test_the_outcome_of_a_job_names_its_run(tiny, trained, tmp_path, monkeypatch):
    job, run = interrupted_job(tiny, trained, tmp_path)
    for error in (KeyboardInterrupt(), UserError("seed=a"), RuntimeError("bad luck")):

        def ended(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(session, "resume", ended)
        assert perform(job, quiet=True).run == run.path
