"""Whatever is damaged is named and left out, and never spoils the rest."""

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewshot_runner.errors import UserError
from fewshot_runner.report.analysis import VERSION, read_analysis, read_picture
from fewshot_runner.report.cells import mean_seconds
from fewshot_runner.report.order import order_of
from fewshot_runner.report.page import page
from fewshot_runner.report.ranking import rank
from fewshot_runner.report.records import find_records
from fewshot_runner.report.tasks import read_tasks

FIGURES = np.random.default_rng(0).choice([0.2, 0.4, 0.6, 0.8, 1.0], 50)


def saved(values, write=np.save) -> bytes:
    file = io.BytesIO()
    write(file, values)
    return file.getvalue()


def promising(shape: str, kind: str = "<f8") -> bytes:
    """A file whose head promises more than it holds."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00v\x00" + head.encode() + bytes(40)


NO_TASKS = {
    "archive": saved(np.ones(20), np.savez),
    "half an archive": saved(np.ones(20), np.savez)[:60],
    "text": saved(np.array(["a", "b"])),
    "structured": saved(np.zeros(20, dtype=[("a", "f4")])),
    "dates": saved(np.zeros(20, dtype="M8[s]")),
    "complex": saved(np.full(20, 0.5, dtype="c8")),
    "petabytes": promising("999999999999999"),
    "more than can be counted": promising("9" * 23),
    "more than there are": promising("6"),
    "more than there are, as fsl writes them": promising("20", kind="<f4"),
    "a head that does not end": saved(np.ones(20)).replace(b"}", b" "),
    "a head that is no head": saved(np.ones(20)).replace(b"'descr'", b"[]     "),
}


@pytest.mark.parametrize("content", NO_TASKS.values(), ids=NO_TASKS)
def test_what_holds_no_figures_of_tasks_is_none(tmp_path, content):
    (tmp_path / "tasks.npy").write_bytes(content)
    assert read_tasks(tmp_path / "tasks.npy") is None


def test_no_byte_of_a_tasks_file_that_is_another_raises(tmp_path):
    content = saved(FIGURES.astype(np.float32))
    for place, byte in itertools.product(range(128), b"\x00(['9,f"):
        (tmp_path / "tasks.npy").write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
        values = read_tasks(tmp_path / "tasks.npy")
        assert values is None or len(values) == 50


CONFIGS = {
    "a mapping in itself": "loop: &a\n  x: *a\n",
    "a list in itself": "loop: &a\n- *a\n",
    "3,000 mappings": f"deep: {'{a: ' * 3000}1{'}' * 3000}\n",
    "3,000 lists": f"deep: {'[' * 3000}1{']' * 3000}\n",
    "no time": "when: !!timestamp x\n",
}


@pytest.mark.parametrize("more", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("before", ["", '"quoted": 1\n'])  # by sections, and as a whole
def test_a_config_that_cannot_be_told_is_damage(make, result, tmp_path, more, before):
    run = make(results=[result(FIGURES)])
    run.config.write_text(before + run.config.read_text() + more)
    whole = make(results=[result(FIGURES)])
    records, [line] = find_records([tmp_path])
    assert [record.run.path for record in records] == [whole.path]
    assert line.startswith(f"{run.config}: cannot be read")


def test_json_that_is_nested_without_end_is_damage(make, tmp_path):
    deep = "[" * 100_000
    for name in ("summary", "status"):
        getattr(make(), name).write_text(deep)
    _, skipped = find_records([tmp_path])
    assert [line.partition(":")[0].rpartition("/")[2] for line in sorted(skipped)] == ["summary.json", "status.json"]
    run = make()
    run.metrics.write_text(f"{deep}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read"):
        run.read_metrics()


@pytest.mark.parametrize("file", ["summary", "metrics", "environment"])
def test_what_is_there_and_cannot_be_opened_is_damage(make, file):
    run = make()
    read = {"summary": run.read_summary, "metrics": run.read_metrics, "environment": run.read_data}[file]
    path = getattr(run, file)
    path.unlink(missing_ok=True)
    assert read() in ([], {}, {"results": []})
    path.mkdir()  # as one that nobody may read, for whoever may read all
    with pytest.raises(UserError, match=f"{path}: cannot be read"):
        read()


def test_an_analysis_that_cannot_be_opened_is_damage(make, tmp_path):
    run = make()
    [record] = find_records([tmp_path])[0]
    assert read_analysis(record) is None
    (run.analysis / "analysis.json").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_analysis(record)
    (run.analysis / "analysis.json").rmdir()
    (run.analysis / "analysis.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        read_analysis(record)
    assert read_picture(record, "a\0b.png") is None


@pytest.mark.parametrize("name", ["status.json", "config.yaml", "summary.json"])
def test_a_pipe_is_not_waited_for(make, result, tmp_path, name):
    make(results=[result(FIGURES)])
    foreign = tmp_path / "outputs" / "foreign"
    foreign.mkdir()
    for each in ("status.json", "config.yaml"):
        (foreign / each).write_text("{}")
    (foreign / name).unlink(missing_ok=True)
    os.mkfifo(foreign / name)
    program = "import sys; from fewshot_runner.cli.main import run; sys.exit(run('compare', sys.argv[1:]))"
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "outputs"], capture_output=True, text=True, timeout=180
    )
    assert answer.returncode == 0
    assert answer.stderr == f"skipped: {foreign}/{name}: is no file\n"


def test_a_run_that_is_done_and_has_no_summary_is_damaged(make, result, tmp_path):
    kept, lost, running = make(results=[result(FIGURES)]), make(results=[result(FIGURES)]), make(state="running")
    lost.summary.unlink()
    running.summary.unlink()
    records, skipped = find_records([tmp_path])
    assert [record.run.path for record in records] == [kept.path, running.path]
    assert skipped == [f"{lost.summary}: is missing; the run folder is damaged"]


ANALYSIS = {
    "version": VERSION, "step": 10, "test": "5way-1shot", "unit": "episodes", "dataset": "glyphs", "split": "test",
    "surface": {"ways": [2], "shots": [1], "accuracy": [[0.5]], "ci95": [[0.1]], "episodes": 10, "seed": 0,
                "n_query": 5, "within_group": False},
    "classes": [{"name": "a", "group": "g", "accuracy": 0.5, "ci95": 0.1, "count": 5}],
    "groups": [{"name": "g", "accuracy": 0.5, "ci95": 0.1, "count": 3}],
    "hardest": [{"number": 1, "accuracy": 0.5, "wrong": 1, "queries": 2, "picture": "x.png", "mistakes": []}],
    "missing": [],
}  # fmt: skip


@pytest.mark.parametrize("junk", ["words", 7, [3], {"a": 1}, [[None]], [{"a": 1}]], ids=str)
@pytest.mark.parametrize("part", ["surface", "classes", "groups", "hardest", "missing", "unit", "test"])
def test_an_analysis_of_another_shape_spoils_no_page(make, result, tmp_path, part, junk):
    run = make(results=[{**result(FIGURES), "step": 10}])
    run.analysis.mkdir()
    records = find_records([tmp_path])[0]
    for content in (ANALYSIS, ANALYSIS | {part: junk}):
        (run.analysis / "analysis.json").write_text(json.dumps(content))
        html = page(rank(records), records, title="")
        is_named = "analysis.json: cannot be read" in html
        assert is_named != ("Accuracy by class" in html)
        if content is ANALYSIS or part in ("surface", "classes", "groups", "hardest"):
            assert is_named == (content is not ANALYSIS)


def test_a_path_that_cannot_be_looked_at_is_told_with_the_reason():
    with pytest.raises(UserError, match=r"cannot be read .*File name too long"):
        find_records([Path("x" * 300)])


@pytest.fixture
def unprivileged():
    """The words before a command that keep it to what the modes of files allow; root may otherwise read all."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, of util-linux, where root runs the tests")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


def test_files_of_somebody_else_are_named_and_the_others_are_shown(make, config, result, tmp_path, unprivileged):
    runs = [make(config(lr=lr), results=[result(FIGURES)]) for lr in (1, 2, 3)]
    runs[0].metrics.write_text("{}\n")
    runs[1].analysis.mkdir()
    inside = runs[2].path.parent.parent / "closed" / "inside"
    inside.mkdir(parents=True)
    closed = [runs[0].metrics, runs[1].analysis, inside.parent]
    program = "import sys; from fewshot_runner.cli.main import run; sys.exit(run(sys.argv[1], sys.argv[2:]))"

    def answer_of(*words: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*unprivileged, sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True
        )

    for path in closed:
        path.chmod(0)
    try:
        page = tmp_path / "page.html"
        report = answer_of("report", tmp_path / "outputs", "-o", page, "--no-analyse")
        refused = [
            answer_of(*words) for words in (
                ("compare", inside), ("report", tmp_path / "outputs", "-o", inside / "x"), ("tb", inside),
                ("export", inside), ("compare", tmp_path / "outputs", "--baseline", inside),
            )
        ]  # fmt: skip
    finally:
        for path in closed:
            path.chmod(0o755)
    assert report.returncode == 0, report.stderr
    assert report.stderr == f"skipped: {inside.parent}: cannot be read (Permission denied)\n"
    for name in ("metrics.jsonl", "analysis.json"):
        assert f"{name}: cannot be read" in page.read_text()
    for each in refused:
        assert each.returncode == 2, each.stderr
        assert each.stderr.splitlines()[-1].startswith("fsl: ")
        assert str(inside) in each.stderr


def test_numbers_that_no_float_can_hold_are_put_in_order_and_shown(make, config, result, tmp_path):
    large = 10**400
    assert sorted([large, 2.5, "x", -large], key=order_of) == [-large, 2.5, large, "x"]
    make(config(lr=1), results=[result(FIGURES)], seconds=large)
    make(config(lr=2), results=[result(FIGURES)], seconds=7)
    records, _ = find_records([tmp_path])
    [ranking] = rank(records)
    assert sorted((mean_seconds(row) or 0) for row in ranking.rows) == [0, 7]
