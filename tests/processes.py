"""Processes that tests start and watch."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NEEDS_PROC = pytest.mark.skipif(not Path("/proc/thread-self/children").is_file(), reason="processes are found in /proc")
FSL = [sys.executable, "-c", "from fewshot_runner.cli.main import main; main()"]  # the command, in its own process
PATIENCE = 180.0  # seconds: a loaded machine takes its time


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@contextmanager
def started(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process, which is killed where the test ends before it does."""
    with subprocess.Popen(words, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def run_script(name: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs scripts/`name` in the interpreter of the tests, and not in a .venv that would be another or made first."""
    script = Path(__file__).parents[1] / "scripts" / name
    return subprocess.run(
        [sys.executable, str(script), *map(str, words)],
        capture_output=True, text=True, env={**os.environ, "FSL_THIS_PYTHON": "1", **environment}, check=False,
    )  # fmt: skip


def children(number: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kernel_flags(path: Path) -> set[str]:
    """What the kernel says of this process's map of `path`: `VmFlags` in proc(5), of which rr is a random read."""
    flags: set[str] = set()
    mapped = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("VmFlags:") and mapped == str(path.resolve()):
            flags.update(line.split()[1:])
        elif "-" in line.split()[0]:
            mapped = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) == 6 else ""
    return flags
