"""Contestants in processes of their own: settings of a process, such as what becomes of freed memory, are each one's
own, and none has what another made for itself."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

Run = Callable[[int], Any]  # so many units of work
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # torch's; fsl sets it for its own process: see engine/memory.py


@contextmanager
def apart(makers: Mapping[str, tuple[Callable[..., Run], dict[str, Any]]], *, threads: int) -> Iterator[dict[str, Run]]:
    """What each of `makers`, a function of a module and its arguments, makes in a process with so many threads.

    All are ready when the block begins, wait while others run, and end with it.
    """
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    processes = []
    for name, (make, arguments) in makers.items():
        lines[name], other_end = context.Pipe()
        process = context.Process(target=serve, args=(other_end, threads, make, arguments), name=name)
        with plain_environment():
            process.start()
        other_end.close()  # so that a process that dies ends the wait for its answer
        processes.append(process)
    try:
        for name, line in lines.items():
            answer_of(name, line)
        yield {name: caller(name, line) for name, line in lines.items()}
    finally:
        for line in lines.values():
            line.close()
        for process in processes:
            process.join()


@contextmanager
def plain_environment() -> Iterator[None]:
    """Processes that begin meanwhile get none of what fsl has set in this one's environment."""
    kept = os.environ.pop(LARGE_PAGES, None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[LARGE_PAGES] = kept


def serve(line: Connection, threads: int, make: Callable[..., Run], arguments: dict[str, Any]) -> None:
    torch.set_num_threads(threads)
    run = make(**arguments)
    line.send("ready")
    while True:
        try:
            units = line.recv()
        except EOFError:
            return
        run(units)
        line.send("done")


def caller(name: str, line: Connection) -> Run:
    def call(units: int) -> None:
        line.send(units)
        answer_of(name, line)

    return call


def answer_of(name: str, line: Connection) -> None:
    try:
        line.recv()
    except EOFError:
        raise RuntimeError(f"{name} ended early; what it said stands above") from None
