"""Signals while a sweep is under way."""

import signal
from collections.abc import Callable, Iterable, Iterator
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

    with handled([signal.SIGTERM, signal.SIGINT], note):
        yield came


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """By `handler` for a while, and then as before."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)
