"""Jobs on a Ray cluster of this machine, which lasts as long as the sweep."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import FSL, NEEDS_PROC, PATIENCE, alive, started, until
from sweeps import has_begun, manifest_of, runs_below

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="needs ray, which is not installed; pip install 'fewshot-runner[ray]'")

CLUSTER = ["launcher=ray", "+launcher.init.include_dashboard=false", "+launcher.init.num_cpus=2"]


@pytest.fixture(autouse=True)
def _as_important_as_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")


def test_jobs_end_in_the_manifest_and_are_resumed(fsl, tiny, tmp_path, monkeypatch):
    """One of three fails; afterwards one that had ended is as if it had been interrupted."""
    monkeypatch.chdir(tmp_path)  # and relative paths begin there in the workers as well
    words = [word for word in tiny() if not word.startswith("hardware.threads")]
    command = ["train", "-m", *words, *CLUSTER, "episode.n_way=3,4,77", "output_dir=runs"]
    answer = fsl(*command)
    assert answer.code == 3, answer.err
    jobs = manifest_of(tmp_path / "runs")["jobs"]
    assert [job["state"] for job in jobs] == ["done", "done", "failed"]
    assert "only 8 classes" in jobs[2]["reason"]
    runs = {run.read_config()["episode"]["n_way"]: run for run in runs_below(tmp_path / "runs")}
    assert sorted(runs) == [3, 4]
    for run in runs.values():
        assert run.read_config()["hardware"]["threads"] == 1  # what a job asks for, not what there is
    whole = {n_way: run.read_summary()["results"] for n_way, run in runs.items()}
    assert [job["result"]["accuracy"] for job in jobs[:2]] == [whole[n_way][0]["accuracy"] for n_way in (3, 4)]
    runs[4].write_status("running", step=10, seconds=1.0)
    runs[4].summary.unlink()
    (runs[4].checkpoints / "step-00000020.pt").unlink()
    answer = fsl(*command)
    assert answer.code == 3, answer.err
    assert answer.err.count("done already") == 1
    assert "going on from step 15" in runs[4].log.read_text()
    assert len(runs_below(tmp_path / "runs")) == 2
    assert runs[4].read_summary()["results"] == whole[4]


@NEEDS_PROC
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_a_sweep_that_is_stopped(tiny, tmp_path, number, code):
    words = [*tiny(), "trainer.max_steps=100000", "trainer.log_every=100000", "trainer.checkpoint_every=100000"]
    command = [*FSL, "train", "-m", *words, *CLUSTER, "seed=0,1,2", f"output_dir={tmp_path}"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: sum(map(has_begun, runs_below(tmp_path))) == 2)
        family = list(descendants(process.pid))
        assert len(family) > 4  # Ray's own and two workers
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    until(lambda: not any(map(alive, family)))
    if number != signal.SIGKILL:
        assert "the same command goes on" in err
        assert "Traceback" not in err
        assert sorted(job["state"] for job in manifest_of(tmp_path)["jobs"]) == ["stopped"] * 3
        for run in runs_below(tmp_path):
            assert run.read_status()["state"] == "stopped"
            assert list(run.checkpoints.glob("step-*.pt"))  # saved first


def descendants(number: int) -> Iterator[int]:
    for task in Path(f"/proc/{number}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from descendants(child)
