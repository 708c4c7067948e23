"""SIGTERM and SIGINT while a sweep is under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_raised() -> Iterator[list[int]]:
    """SIGTERM raises as SIGINT does, so that what is under way is put down and the manifest written; yields which came.

    KeyboardInterrupt in both cases: of what a handler raises, Ray passes on nothing else. SIGINT is set as well: a
    shell may have started this process in the background, where it is ignored.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
