"""Memory that stays with the process, counted in page faults of a process of its own."""

import ctypes
import mmap
import os
import subprocess
import sys

import pytest

from fewshot_runner.engine.memory import keep_freed_memory

SIZE = 40_000_000  # above 32 MB, up to which glibc learns by itself to keep what was freed
SETTLES, COUNTED = 100, 10  # blocks; a small object behind a freed block hides it from the next, until all have a place
PROGRAM = f"""
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: where every page is a large one, there are few faults
import torch
from fewshot_runner.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
total = 0
for block in range({SETTLES + COUNTED}):
    total += torch.ones({SIZE} // 4).sum()
    if block == {SETTLES} - 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    clean = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}  # other tests set it
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], env=clean, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_what_was_freed_is_used_again_without_page_faults() -> None:
    given_back = page_faults("give back")
    assert given_back > COUNTED / 2 * SIZE / mmap.PAGESIZE
    assert page_faults("keep") < given_back / 5


def test_another_c_library_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
