"""Where mixed precision stops, and where sums are finer still."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(where: Tensor) -> AbstractContextManager:
    """No mixed precision on the device of `where`: rounded to 8 bits, near misses among classes become ties."""
    return torch.autocast(where.device.type, enabled=False)


def finest(where: Tensor) -> torch.dtype:
    """float64, or float32 on the devices that have no other (Apple's)."""
    return torch.float32 if where.device.type == "mps" else torch.float64
