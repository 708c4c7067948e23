"""Less memory for a process, what it has of the page cache included: a control group, which takes root on Linux."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
LIMITS = {GROUPS / "memory": "memory.limit_in_bytes", GROUPS: "memory.max"}  # version 1 and 2


@contextmanager
def limited(size: int) -> Iterator[list[str] | None]:
    """What to write before a command so that it has `size` bytes; None where that cannot be had."""
    group = new_group(size)
    try:
        yield None if group is None else ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "limited"]
    finally:
        if group is not None:
            removed(group)


def forget(file: Path) -> None:
    """Takes a file out of the page cache: a page is charged to whoever brings it in, and to nobody who finds it."""
    with open(file, "rb") as content:
        os.fsync(content.fileno())  # a page that is not on the disk yet stays
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def new_group(size: int) -> Path | None:
    for parent, limit in LIMITS.items():
        group = parent / f"fsl-bench-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(size))
                return group
            group.rmdir()
    return None


def removed(group: Path) -> None:
    for _ in range(20):  # the group is busy until its last process is gone
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)
