"""Disk and memory that run out: no defect, and what is there stays."""

import errno
import json

import pytest
import torch

import fewshot_runner.cli.evaluation as evaluation
import fewshot_runner.engine.train as training
from fewshot_runner.cli.shortage import shortage
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.runs import RunFolder


def allocator_error() -> RuntimeError:
    """What torch itself says on this machine."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    return caught.value


SHORT = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    allocator_error(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", SHORT)
def test_memory_that_runs_out_is_no_defect(fsl, tiny, tmp_path, monkeypatch, error):
    def runs_out(*arguments, **options):
        raise error

    monkeypatch.setattr(training, "fit", runs_out)
    answer = fsl("train", *tiny(), f"output_dir={tmp_path}")
    assert answer.code == 2
    said = answer.err.splitlines()[-1]
    assert said.startswith("fsl: not enough memory")
    assert str(error).split("\n")[0] in said
    assert "; end other programs, or let the network see fewer or smaller images" in said
    assert "Traceback" not in answer.err


def test_what_is_short_is_told_from_what_is_wrong():
    assert shortage(OSError(errno.ENOSPC, "No space left on device", "/data/x")).startswith("/data/x: No space left")
    for error in (OSError(errno.EACCES, "denied"), RuntimeError("shapes do not match"), ValueError("out of memory")):
        assert shortage(error) is None


def breaks_off(after: int):
    """`evaluate`, of tests alone, which is interrupted in the test that follows so many."""
    tested = []

    def some(method, protocol, **options):
        if "between" in options:  # validation has none
            tested.append(protocol)
            if len(tested) > after:
                raise KeyboardInterrupt
        return evaluate(method, protocol, **options)

    return some


def test_what_has_been_tested_stays_whatever_becomes_of_the_next_test(fsl, tiny, tmp_path, monkeypatch):
    words = [*tiny(), "dataset.tests={hard: {n_way: 4}, harder: {n_way: 5}}", f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", breaks_off(after=2))
        assert fsl("train", *words).code == 130
    [config] = tmp_path.rglob("config.yaml")
    run = RunFolder(config.parent)
    kept = run.read_summary()["results"]
    assert [result["name"] for result in kept] == ["3way1shot", "hard"]
    assert run.read_status()["state"] == "stopped"
    assert fsl("resume", run.path).code == 0
    whole = run.read_summary()["results"]
    assert whole[:2] == kept
    assert [result["name"] for result in whole] == ["3way1shot", "hard", "harder"]

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", breaks_off(after=1))
        assert fsl("eval", f"run={run.path}", "dataset.source.drawers=7").code == 130
    [*before, asked] = json.loads((run.path / "summary.json").read_text())["results"]
    assert before == whole
    assert (asked["name"], asked["images_hash"] == whole[0]["images_hash"]) == ("3way1shot", False)
