"""Where mixed precision stops."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(where: Tensor) -> AbstractContextManager:
    """No mixed precision on the device of `where`: rounded to 8 bits, near misses among classes become ties."""
    return torch.autocast(where.device.type, enabled=False)
