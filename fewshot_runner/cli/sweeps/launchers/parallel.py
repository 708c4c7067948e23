"""Several jobs at once on this machine, in worker processes.

On Linux they are forks of a process that has imported everything, once for all of them and while the jobs are still
being planned. It does nothing else: a fork of a process whose threads have worked may hang. Elsewhere each worker
imports everything itself.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fewshot_runner.cli.sweeps.job import Job, Outcome, perform
from fewshot_runner.cli.sweeps.launchers.base import SECONDS_TO_SAVE, Launcher, seen_from_here
from fewshot_runner.cores import available_cores
from fewshot_runner.errors import UserError
from fewshot_runner.runs import FAILED

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
LIBRARIES_ASK = "OMP_NUM_THREADS"
OF_JOBS = "fewshot_runner.cli.session"  # imports whatever a job needs


class Parallel(Launcher):
    """`workers` jobs at a time, each with `threads` threads; "auto": a worker a core, the cores shared out evenly.

    Threads that a job's own config gives stand. A worker whose parent is gone saves its run and ends; one that is
    stopped or killed by itself fails its job alone.
    """

    def __init__(self, *, workers: int | str, threads: int | str) -> None:
        for key, value in (("workers", workers), ("threads", threads)):
            if value != "auto" and (isinstance(value, str) or value < 1):
                raise UserError(f"launcher.{key}={value}: give auto or a whole number of 1 or more")
        cores = available_cores()
        self.workers = cores if workers == "auto" else int(workers)
        self.threads = max(1, cores // self.workers) if threads == "auto" else int(threads)

    def prepare(self) -> None:
        if CONTEXT.get_start_method() == "forkserver":
            from multiprocessing import forkserver  # late: not every system has it

            CONTEXT.set_forkserver_preload([OF_JOBS])
            with threads_of_libraries(self.threads):
                forkserver.ensure_running()

    def run(self, jobs: Iterator[Job], folder: Path) -> Iterator[tuple[Job, Outcome]]:
        busy: dict[Worker, Job] = {}
        idle: list[Worker] = []
        try:
            while True:
                while len(busy) < self.workers and (job := next(jobs, None)) is not None:
                    worker = idle.pop() if idle else Worker(self.threads)
                    busy[worker] = job
                    worker.begin(job)
                if not busy:
                    return
                ready = set(wait([worker.connection for worker in busy]))
                for worker in [worker for worker in busy if worker.connection in ready]:
                    outcome = worker.outcome()
                    job = busy.pop(worker)
                    if worker.process.is_alive():
                        idle.append(worker)
                    yield job, outcome
        finally:
            put_down([*busy, *idle])


class Worker:
    """A process that does one job after the other."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=work, args=(theirs, threads), daemon=True)
        with threads_of_libraries(threads):
            self.process.start()
        theirs.close()  # so that the end of the process is the end of what it sends

    def begin(self, job: Job) -> None:
        try:
            self.connection.send(job)
        except OSError:  # killed while idle: `outcome` tells
            return

    def outcome(self) -> Outcome:
        """How the job ended; waits for it."""
        try:
            return seen_from_here(self.connection.recv())
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            return Outcome(FAILED, reason=f"its process was {cause} (out of memory?)" if code < 0 else cause)


@contextmanager
def threads_of_libraries(count: int) -> Iterator[None]:
    """How many threads the numerical libraries have of a process that is started meanwhile: they ask as they load."""
    before = os.environ.get(LIBRARIES_ASK)
    os.environ[LIBRARIES_ASK] = str(count)
    try:
        yield
    finally:
        os.environ.pop(LIBRARIES_ASK)
        if before is not None:
            os.environ[LIBRARIES_ASK] = before


def put_down(workers: list[Worker]) -> None:
    """Ends processes; those at work on a run save it first. A second Ctrl-C does not wait for that."""
    for worker in workers:
        worker.process.terminate()
        worker.connection.close()  # nothing more comes: a worker that has saved its run ends
    try:
        for worker in workers:
            worker.process.join(SECONDS_TO_SAVE)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def work(connection: Connection, threads: int) -> None:
    """What a worker process does until its parent has nothing more for it."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between jobs Ctrl-C is the parent's; a job saves its run
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        outcome = perform(job.with_threads(threads), quiet=True)
        with suppress(OSError):  # nobody waits for it any more
            connection.send(outcome)


def end_with_parent() -> None:
    """Stops this process once its parent is gone, however that went: first as Ctrl-C does, then at once."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(SECONDS_TO_SAVE)
    os._exit(1)
