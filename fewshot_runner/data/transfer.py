"""How pixels, random draws and constants reach the device of a batch: without waiting for it.

A copy from ordinary memory to a GPU waits until the GPU has done all that was asked of it before, so the next batch
would be prepared only after the last step. Page-locked memory is copied while the GPU computes.
"""

import functools

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device | None) -> Tensor:
    """To `device`, or where they are for None."""
    if device is None:
        return values
    crossing = values.device.type == "cpu" and device.type == "cuda"
    return (values.pin_memory() if crossing else values).to(device, non_blocking=True)


@functools.cache
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1): one value a channel, copied once."""
    return torch.tensor(values, device=device).view(-1, 1, 1)
