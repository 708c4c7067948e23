"""Output whose reader may go, as in `fsl train 2>&1 | head`: what is told then is lost, and no run is."""

import os
from typing import Any, TextIO


class StandardError:
    """Stands in the place of `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            discard(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """What is still to be written there goes nowhere, as nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
