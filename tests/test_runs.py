"""The run folder: claimed by one, opened with care, and readable after a kill."""

import ast
import itertools
import json
import platform
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fewshot_runner
from fewshot_runner import runs
from fewshot_runner.errors import UserError
from fewshot_runner.runs import DONE, FAILED, RUNNING, SECTIONS, RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.claim(tmp_path, "squares-siamese")


def test_trap_20_claims_in_one_second_with_colliding_ids_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    numbers = itertools.count()
    monkeypatch.setattr(secrets, "token_hex", lambda _: f"{next(numbers) // 8:06x}")  # eight claims draw each id
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.claim(tmp_path, "a-b"), range(16)))
    assert len({run.path for run in runs}) == 16
    assert len(list((tmp_path / "a-b").iterdir())) == 16


def test_trap_20_processes_that_start_at_once_get_different_folders(tmp_path):
    program = (
        "import sys; from pathlib import Path; from fewshot_runner.runs import RunFolder\n"
        "for _ in range(20): print(RunFolder.claim(Path(sys.argv[1]), 'a-b').path)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    paths = [path for process in processes for path in process.communicate()[0].splitlines()]
    assert len(set(paths)) == len(paths) == 60


def test_a_claimed_folder_says_when_and_what(run, tmp_path):
    assert run.path.parent == tmp_path / "squares-siamese"
    stamp, _, identity = run.path.name.rpartition("-")
    time.strptime(stamp, "%Y%m%d-%H%M%S")
    assert len(identity) == 6
    assert run.name == f"squares-siamese/{run.path.name}"
    assert sorted(entry.name for entry in run.path.iterdir()) == ["checkpoints", "tasks"]


@pytest.mark.parametrize("obstacle", ["file", "file above", "dangling link"])
def test_a_place_that_cannot_hold_runs_is_refused(tmp_path, obstacle):
    output_dir = tmp_path / "outputs"
    if obstacle == "file":
        output_dir.write_text("")
    elif obstacle == "file above":
        output_dir.write_text("")
        output_dir = output_dir / "deeper"
    else:
        output_dir.symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=r"output_dir=.*outputs.*: cannot make a run folder there"):
        RunFolder.claim(output_dir, "a-b")


def test_opening_what_is_no_run_says_why(run, tmp_path):
    with pytest.raises(UserError, match="nowhere: there is no such run folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not a run folder \(config.yaml and status.json not found\)$"):
        RunFolder.open(run.path)
    run.config.write_text("seed: 0\n")
    with pytest.raises(UserError, match=r"not a run folder \(status.json not found\)"):
        RunFolder.open(run.path)
    with pytest.raises(UserError, match=f"did you mean {run.path}"):
        RunFolder.open(tmp_path)
    run.write_status(RUNNING, step=0, seconds=0.0)
    assert RunFolder.open(str(run.path)).path == run.path


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("content", [None, 3, "x", []])
def test_a_config_without_a_section_of_every_run_is_refused_by_name(run, section, content):
    whole = {name: {"a": 1} for name in SECTIONS}
    run.config.write_text(json.dumps(whole))
    assert run.read_config() == whole
    damaged = {**whole, section: content} if content is not None else {k: v for k, v in whole.items() if k != section}
    run.config.write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=rf"{run.config}: no config of a run \({section} not found\)"):
        run.read_config()


def test_status_keeps_its_start_and_gains_a_reason(run, monkeypatch):
    clock = iter(["start", "end"])
    monkeypatch.setattr(time, "strftime", lambda _: next(clock))
    run.write_status(RUNNING, step=0, seconds=0.04)
    assert run.read_status() == {
        "state": "running",
        "step": 0,
        "seconds": 0.0,
        "started": "start",
        "updated": "start",
        "host": platform.node(),
    }
    run.write_status(FAILED, step=7, seconds=12.34, reason="the loss is not finite")
    assert run.read_status() == {
        "state": "failed",
        "step": 7,
        "seconds": 12.3,
        "started": "start",
        "updated": "end",
        "host": platform.node(),
        "reason": "the loss is not finite",
    }


@pytest.mark.parametrize("content", [b"", b'{"state": "runn', b"\xff\xfe", b"[]"])
def test_a_damaged_status_is_named_and_can_be_written_anew(run, content):
    run.status.write_bytes(content)
    with pytest.raises(UserError, match=r"status.json: .*the run folder is damaged"):
        run.read_status()
    run.write_status(DONE, step=3, seconds=1.0)
    assert run.read_status()["state"] == "done"


def test_a_run_without_summary_has_no_results(run):
    assert run.read_summary() == {"results": []}
    run.write_summary({"results": [{"accuracy": 0.5}], "best_step": 3})
    assert run.read_summary() == {"results": [{"accuracy": 0.5}], "best_step": 3}


def test_metrics_survive_a_line_cut_off_by_a_kill(run):
    assert run.read_metrics() == []
    lines = [{"step": step, "train": {"loss": 1 / (step + 1)}} for step in range(4)]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    for cut in range(len(whole) + 1):
        run.metrics.write_text(whole[:cut])
        assert run.read_metrics() == lines[: whole[:cut].count("\n")]


def test_cutting_metrics_drops_later_steps_and_keeps_the_bytes_of_earlier_ones(run):
    lines = [json.dumps({"step": step, "train": {"loss": 1 / (step + 3)}}) + "\n" for step in (1, 2, 2, 3)]
    run.metrics.write_text("".join(lines) + '{"step": 4, "tr')
    run.cut_metrics(2)
    assert run.metrics.read_text() == "".join(lines[:3])
    run.cut_metrics(0)
    assert run.metrics.read_text() == ""


def test_trap_16_what_a_power_cut_left_of_later_steps_is_cut_off_with_them(run):
    """A file system may have made the file longer, and not have written what belongs there."""
    kept = b'{"step": 1}\n{"step": 2}\n'
    run.metrics.write_bytes(kept + b'{"step": 3}\n' + bytes(50) + b'\n"x"\n{"step": 4}\n{}\n' + bytes(9))
    run.cut_metrics(2)
    assert run.metrics.read_bytes() == kept
    run.metrics.write_bytes(bytes(9) + b"\n" + kept)
    with pytest.raises(UserError, match=r"metrics.jsonl: .*the run folder is damaged"):
        run.cut_metrics(2)


def test_sweeping_removes_what_a_killed_save_left_and_nothing_else(run):
    run.write_summary({"results": []})
    kept = sorted(run.path.rglob("*"))
    for folder in (run.path, run.checkpoints, run.tasks):
        (folder / ".last.pt.0123456789ab.tmp").write_bytes(b"half")
    run.remove_half_written()
    assert sorted(run.path.rglob("*")) == kept


def test_a_damaged_line_of_metrics_is_named(run):
    run.metrics.write_bytes(b'{"step": 1}\n\0\0\xff\0\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl: .*the run folder is damaged"):
        run.read_metrics()


def test_no_other_module_names_a_file_of_a_run_folder(run):
    inside = [getattr(run, name) for name, kind in vars(RunFolder).items() if isinstance(kind, property)]
    files = {path.name for path in inside if isinstance(path, Path) and path.suffix}
    files |= {runs.BEST, runs.STEP, runs.STEPS, runs.WEIGHTS}
    assert {"config.yaml", "analysis.json", "best.pt", "step-{:08d}.pt"} <= files
    package = Path(fewshot_runner.__file__).parent
    others = [path for path in package.rglob("*.py") if path.name != "runs.py"]
    assert len(others) > 100
    for path in others:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert Path(node.value).name not in files, f"{path}:{node.lineno}"


def test_runs_are_found_where_they_are_claimed(run, tmp_path):
    other, _without_config = RunFolder.claim(tmp_path, "squares-maml"), RunFolder.claim(tmp_path, "squares-maml")
    for claimed in (run, other):
        claimed.config.write_text("seed: 0\n")
    assert {found.path for found in RunFolder.below(tmp_path)} == {run.path, other.path}
    assert [found.path for found in RunFolder.below(tmp_path, "squares-maml")] == [other.path]
