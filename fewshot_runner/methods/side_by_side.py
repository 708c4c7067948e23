"""Tasks of a meta-batch at the same time: on a CPU, one to a core.

The maps of one task are small. Cores that share every operation on them wait for one another more than they compute, so
each takes a whole task instead, in a thread of its own: torch's operations let go of Python's lock. Large maps keep all
cores busy, and the graphs of several such tasks would fill the memory.

The threads that torch shares an operation with look out for the next one for milliseconds, at the price of a core each.
They are sent home first: by OpenMP, which torch has brought along.

The random numbers of dropout would depend on which task came first. A network that has been seen to draw some does its
tasks in turn.
"""

import copy
import ctypes
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewshot_runner.models.precision import same_precision

T = TypeVar("T")
Work = Callable[[nn.Module, int], T]

OMP_PAUSE_SOFT = 1  # omp.h
SMALL = 2**17  # values of a task's images
_draws: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # networks with dropout, or what else takes random numbers


def of_each_task(work: Work[T], n_tasks: int, backbone: nn.Module, where: Tensor, *, at_once: bool) -> list[T]:
    """`work(backbone, e)` for each task e, in their order; `where` (E, ...) are their images, or some of them.

    `at_once` allows several at the same time.

    What `work` gets is the backbone itself or a twin with the same parameters and buffers of its own, so it may replace
    them and change modes. It must add to no gradient: whichever task came first would decide how sums are rounded.
    """
    precision, gradients = same_precision(where), torch.is_grad_enabled()  # a thread begins without either

    def one(backbone: nn.Module, e: int) -> T:
        with precision(), torch.set_grad_enabled(gradients):
            return work(backbone, e)

    are_small = where.device.type == "cpu" and where[0].numel() <= SMALL
    n_workers = min(n_tasks, torch.get_num_threads()) if at_once and are_small else 1
    if n_workers > 1 and backbone not in _draws and not is_compiled(backbone):
        before = torch.get_rng_state()
        results = _at_once(one, n_tasks, backbone, n_workers)
        if torch.equal(torch.get_rng_state(), before):
            return results
        _draws.add(backbone)
        torch.set_rng_state(before)
    return [one(backbone, e) for e in range(n_tasks)]


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has been at work, which a copy would not keep."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _at_once(work: Work[T], n_tasks: int, backbone: nn.Module, n_workers: int) -> list[T]:
    """The calling thread takes tasks with the backbone itself, each of its helpers with a twin."""
    shared = {id(each): each for each in backbone.parameters()}
    twins = [copy.deepcopy(backbone, dict(shared)) for _ in range(n_workers - 1)]
    tasks: SimpleQueue[int] = SimpleQueue()
    for e in range(n_tasks):
        tasks.put(e)
    results: dict[int, T] = {}

    def take_tasks(backbone: nn.Module) -> None:
        with suppress(Empty):
            while True:
                e = tasks.get_nowait()
                results[e] = work(backbone, e)

    n_threads = torch.get_num_threads()
    share = max(1, n_threads // n_workers)
    _send_idle_threads_home()
    try:
        with ThreadPoolExecutor(n_workers - 1, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            helpers = [pool.submit(take_tasks, twin) for twin in twins]
            torch.set_num_threads(share)
            take_tasks(backbone)
            for helper in helpers:
                helper.result()
    finally:
        torch.set_num_threads(n_threads)
    return [results[e] for e in range(n_tasks)]


def _send_idle_threads_home() -> None:
    """Those that help the calling thread. Torch's next operation of several threads makes new ones."""
    try:
        pause = ctypes.CDLL(None).omp_pause_resource_all  # OpenMP 5.0, section 3.6
    except (AttributeError, OSError, TypeError):  # torch came without it
        return
    pause(OMP_PAUSE_SOFT)
