"""Checkpoints that are whole or absent, verified when read, and hold tensors and plain values alone.

A file is what `torch.save` writes, followed by a mark and the sha256 of all before it; `torch.load` reads it as it
is, since zip readers pass over what trails the archive.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from fewshot_runner import atomic
from fewshot_runner.errors import UserError
from fewshot_runner.runs import BEST, STEP, STEPS

MARK = b"fsl-sha256:"
TRAILER = len(MARK) + 32
KEPT = 2


class DamagedCheckpoint(UserError):
    """A checkpoint that is missing, cut off or altered."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) so that a kill at any moment leaves the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    atomic.write_bytes(path, content + MARK + hashlib.sha256(content).digest())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote; raises `DamagedCheckpoint` unless every byte is as it was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedCheckpoint(f"{path}: cannot be read ({error.strerror})") from error
    body, trailer = content[:-TRAILER], content[-TRAILER:]
    if trailer != MARK + hashlib.sha256(body).digest():
        raise DamagedCheckpoint(f"{path}: damaged, its checksum does not match")
    try:
        return torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(f"{path}: holds more than tensors and plain values; fsl did not write it") from error


class Checkpoints:
    """The folder of a run's checkpoints: the best state and the last two of training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / BEST

    def save_best(self, state: dict[str, Any]) -> None:
        save(self.best, state)

    def save_step(self, step: int, state: dict[str, Any]) -> None:
        save(self.folder / STEP.format(step), state)
        for older in self._steps()[KEPT:]:
            older.unlink()

    def load_step(self, device: torch.device | str = "cpu") -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole state, or None where there is none, and a line for each damaged one passed over."""
        damaged = []
        for path in self._steps():
            try:
                return load(path, device), damaged
            except DamagedCheckpoint as error:
                damaged.append(str(error))
        return None, damaged

    def load_best(self, device: torch.device | str = "cpu") -> tuple[dict[str, Any], list[str]]:
        """The best state, and where it is damaged the newest whole one, with a line for each file passed over.

        Raises `DamagedCheckpoint` where none is whole.
        """
        try:
            return load(self.best, device), []
        except DamagedCheckpoint as error:
            state, damaged = self.load_step(device)
            if state is None:
                raise
            return state, [str(error), *damaged]

    def _steps(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob(STEPS), reverse=True)
