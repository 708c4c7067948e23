"""Processes that the benchmark starts: what they inherit, how much memory they have, and how much they take."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from benchmarks.apart import apart
from benchmarks.memory_limit import forget, limited
from benchmarks.peak_memory import peak

from fewshot_runner.engine.memory import keep_freed_memory

READ_TWICE = """
import resource, sys
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20):
            pass
    print((resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before) * 512)
"""


def test_contestants_begin_without_what_fsl_has_set_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # this process keeps its settings
    says = {"args": f"env > {tmp_path / 'environment'}", "shell": True, "check": True}
    with mock.patch.dict(os.environ, {"OF_THE_USER": "1"}):
        os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
        before = set(os.environ)
        keep_freed_memory()
        (ours,) = set(os.environ) - before
        with apart({"a contestant": (subprocess.run, says)}, threads=1):
            assert ours in os.environ
    theirs = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert "OF_THE_USER" in theirs
    assert ours not in theirs


def test_a_peak_is_that_of_the_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    held = b"x" * (300 << 20)
    assert peak(["sleep", "0"]) < 100
    assert 300 < peak([sys.executable, "-c", f"b'x' * {len(held)}"]) < 400
    with pytest.raises(RuntimeError, match="ended with 3"):
        peak(["sh", "-c", "exit 3"])
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    peak(["sh", "-c", 'test -z "$THP_MEM_ALLOC_ENABLE"'])


def test_little_memory_counts_what_is_read_of_the_disk(tmp_path: Path) -> None:
    """What is in memory already is charged to nobody again, so a file has to be forgotten first."""
    file, size, limit = tmp_path / "file", 128 << 20, 64 << 20
    file.write_bytes(bytes(size))
    read_twice = [sys.executable, "-c", READ_TWICE, str(file)]
    with limited(limit) as command:
        if command is None:
            pytest.skip("needs root and Linux's control groups of memory")
        assert bytes_read(*command, *read_twice) == [0, 0]
        forget(file)
        if bytes_read(*read_twice) == [0, 0] and not os.major(file.stat().st_dev):  # that of no block device
            pytest.skip(f"needs a disk, and {tmp_path} is in memory; set --basetemp")
        forget(file)
        first, second = bytes_read(*command, *read_twice)
    assert first >= size
    assert second >= size - limit


def bytes_read(*words: str) -> list[int]:
    """The bytes that READ_TWICE says that it has had from the disk, each time."""
    return [int(line) for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()]
