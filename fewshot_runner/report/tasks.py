"""The figures of single tasks, as a run keeps them for each of its results."""

import re
from pathlib import Path

import numpy as np

# How numpy begins a file of numbers in one dimension. Its own reader takes the head for Python, so that a damaged one
# may raise anything, and makes room for whatever shape that promises.
HEAD = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '([<>|](?:f[248]|[iu][1248]))', 'fortran_order': False, 'shape': \((\d+),\), }",
    re.DOTALL,
)


def read_tasks(path: Path) -> np.ndarray | None:
    """(T,) float32; None where the file is missing, damaged, or of something else."""
    try:
        content = path.read_bytes()
        head = HEAD.match(content)
        if head is None:
            return None
        values = np.frombuffer(content, dtype=head[1].decode(), offset=10 + int.from_bytes(content[8:10], "little"))
        whole = 0 < len(values) == int(head[2]) and np.isfinite(values).all()
    except (OSError, ValueError):
        return None
    return values if whole else None
