"""Random numbers as pure functions of a seed, the name of a stream, and a position in it.

Nothing here keeps a state between calls. So an interrupted run needs no more than its step to go on with the same
numbers, and episode k is the same episode in every run and on every machine.
"""

import hashlib

import numpy as np
import torch


def _key(seed: int, stream: str) -> bytes:
    return hashlib.sha256(f"{seed}/{stream}".encode()).digest()


def numpy_generator(seed: int, stream: str, position: int = 0) -> np.random.Generator:
    """A generator of its own for every position: Philox counts from a 192-bit offset that no neighbour reaches."""
    key = np.frombuffer(_key(seed, stream)[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, position]))


def uniforms(seed: int, stream: str, positions: range, count: int) -> np.ndarray:
    """(len(positions), count) numbers in [0, 1); row i depends on (seed, stream, positions[i]) alone."""
    key = np.frombuffer(_key(seed, stream)[:16], dtype=np.uint64)
    rows = np.empty((len(positions), count))
    for row, position in zip(rows, positions, strict=True):
        np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, position])).random(out=row)
    return rows


def torch_seed(seed: int, stream: str, position: int = 0) -> int:
    """A 63-bit seed for torch that depends on (seed, stream, position) alone."""
    return int.from_bytes(_key(seed, f"{stream}/{position}")[:8], "little") >> 1


def torch_generator(seed: int, stream: str, position: int = 0) -> torch.Generator:
    """A CPU generator: small random parameters are drawn there for every device, so that devices agree."""
    return torch.Generator().manual_seed(torch_seed(seed, stream, position))
