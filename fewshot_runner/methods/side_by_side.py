"""Tasks of a meta-batch at the same time: on a CPU, one to a core.

The maps of one task are small. Cores that share every operation on them wait for one another more than they compute, so
each takes a whole task instead, in a thread of its own: torch's operations let go of Python's lock. Large maps keep all
cores busy, and the graphs of several such tasks would fill the memory.

Torch's OpenMP threads wait for the next operation in a loop, which keeps a core busy for some milliseconds. They are
ended before the tasks begin.

The random numbers of dropout would depend on which task came first. A network that has been seen to draw some in
training does its tasks in turn there.
"""

import copy
import ctypes
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewshot_runner.models.precision import same_precision

T = TypeVar("T")
Work = Callable[[nn.Module, int], T]

OMP_PAUSE_SOFT = 1  # omp.h
SMALL = 2**18  # values of the images that a task passes through its network together
_draws: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # networks with dropout, or what else takes random numbers


def of_each_task(
    work: Work[T], n_tasks: int, backbone: nn.Module, images: Tensor, *, pass_size: int, at_once: bool
) -> list[T]:
    """`work(backbone, e)` for each task e, in their order; `images` are theirs, or some of them.

    `at_once` allows several at the same time, `pass_size` is how many values go through the network in one pass.

    What `work` gets is the backbone itself or a twin with the same parameters and buffers of its own, so it may replace
    them and change modes. It must add to no gradient: whichever task came first would decide how sums are rounded.
    """
    precision, gradients = same_precision(images), torch.is_grad_enabled()  # a thread begins without either

    def one(backbone: nn.Module, e: int) -> T:
        with precision(), torch.set_grad_enabled(gradients):
            return work(backbone, e)

    are_small = images.device.type == "cpu" and pass_size <= SMALL
    n_workers = min(n_tasks, torch.get_num_threads()) if at_once and are_small else 1
    draws = backbone.training and backbone in _draws
    if n_workers > 1 and not draws and not is_compiled(backbone):
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
    tasks = iter(range(n_tasks))  # each of which goes to one thread
    results: dict[int, T] = {}

    def take_tasks(backbone: nn.Module) -> None:
        try:
            for e in tasks:
                results[e] = work(backbone, e)
        except BaseException:
            for _ in tasks:  # nobody begins another
                pass
            raise

    n_threads = torch.get_num_threads()
    share = max(1, n_threads // n_workers)
    _end_idle_threads()
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


def _end_idle_threads() -> None:
    """Ends OpenMP's, of the calling thread in GNU's library; torch's next operation of several threads makes new ones.

    OpenMP 5.1, section 3.6.2.
    """
    try:
        pause = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # torch came without it
        return
    pause(OMP_PAUSE_SOFT)
