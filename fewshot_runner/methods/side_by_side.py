"""Tasks of a meta-batch at the same time: on a CPU, one to a core.

The maps of one task are small. Cores that share every operation on them wait for one another more than they compute, so
each takes a whole task instead, in a thread of its own: torch's operations let go of Python's lock. Large maps keep all
cores busy, and the graphs of several such tasks would fill the memory.

The random numbers of dropout would depend on which task came first. A network that has been seen to draw some does its
tasks in turn.
"""

import copy
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewshot_runner.models.precision import same_precision

T = TypeVar("T")
Work = Callable[[nn.Module, int], T]

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
    twins: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(n_workers):
        twins.put(copy.deepcopy(backbone, {id(each): each for each in backbone.parameters()}))

    def by_some_twin(e: int) -> T:
        twin = twins.get()
        try:
            return work(twin, e)
        finally:
            twins.put(twin)

    n_threads = torch.get_num_threads()
    try:
        share = max(1, n_threads // n_workers)
        with ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            return list(pool.map(by_some_twin, range(n_tasks)))
    finally:
        torch.set_num_threads(n_threads)  # for threads that begin later, which take the number that was set last
