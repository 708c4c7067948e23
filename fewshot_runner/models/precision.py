"""Where mixed precision stops, and where sums are finer still."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor


def full_precision(where: Tensor) -> AbstractContextManager:
    """No mixed precision on the device of `where`: rounded to 8 bits, near misses among classes become ties."""
    return torch.autocast(where.device.type, enabled=False)


def same_precision(where: Tensor) -> Callable[[], AbstractContextManager]:
    """What enters mixed precision as it stands now on the device of `where`, for another thread.

    Without its memory of cast weights, which would keep those of every step that makes new ones.
    """
    kind = where.device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)


def at_least_float32(values: Tensor) -> Tensor:
    """What mixed precision has left in 16 bits, in float32; what is finer stays as it is."""
    return values if values.dtype == torch.float64 else values.float()


def finest(where: Tensor) -> torch.dtype:
    """float64, or float32 on the devices that have no other (Apple's)."""
    return torch.float32 if where.device.type == "mps" else torch.float64
