"""How pixels, labels, random draws and constants reach the device of a batch: while it computes.

A copy from ordinary memory to a GPU waits until the GPU has done all that was asked of it before, so the next batch
would be prepared only after the last step. Page-locked memory does not wait, and on a stream of its own the copy does
not even queue up behind the last step: it is there when the next one begins.
"""

import functools

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | None) -> Tensor:
    """To `device`, or where they are for None."""
    if device is None:
        return values
    if values.device.type == "cpu" and device.type == "cuda":
        return _to_device_aside(values, device)
    return values.to(device)  # else nobody would keep what is sent until it is there: pytorch/pytorch#189690


def _to_device_aside(values: Tensor, device: torch.device) -> Tensor:
    copying, computing = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        there = values.pin_memory().to(device, non_blocking=True)
    computing.wait_stream(copying)
    there.record_stream(computing)  # so that no later copy takes this memory before it has been used
    return there


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@functools.cache
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1): one value a channel, copied once."""
    return torch.tensor(values, device=device).view(-1, 1, 1)
