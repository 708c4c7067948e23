"""The one place that chooses the device, the number of threads, the precision and the memory format."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from fewshot_runner.cores import available_cores
from fewshot_runner.errors import UserError

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Hardware:
    """`device`: auto, cpu, cuda (or cuda:1 ...) or mps; `threads`: "auto" for one a core."""

    def __init__(
        self,
        *,
        device: str = "auto",
        threads: int | str = "auto",
        precision: str = "float32",
        channels_last: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"hardware.precision={precision}: choose one of {', '.join(PRECISIONS)}")
        if threads != "auto" and (isinstance(threads, str) or threads < 1):
            raise UserError(f"hardware.threads={threads}: give auto or a whole number of 1 or more")
        self.device = choose_device(device)
        self.threads = available_cores() if threads == "auto" else int(threads)
        self.precision = PRECISIONS[precision]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        torch.set_num_threads(self.threads)

    def place(self, module: nn.Module) -> nn.Module:
        """Moves a module here, its 4-dimensional parameters in the chosen memory format."""
        return module.to(self.device, memory_format=self.memory_format)

    def autocast(self) -> AbstractContextManager:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def keep(self, pixels: Tensor) -> Tensor:
        """The pixels on the device where they fit into a third of its free memory, else where they are."""
        if self.device.type == "cuda" and pixels.nbytes < torch.cuda.mem_get_info(self.device)[0] / 3:
            return pixels.to(self.device)
        return pixels


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes a GPU where there is one."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind, colon, number = name.partition(":")
    if kind not in available or (colon and not number.isdecimal()):
        raise UserError(f"hardware.device={name}: choose auto, cpu, cuda or mps, or one of several GPUs as in cuda:1")
    if not available[kind]:
        raise UserError(f"hardware.device={name}: torch finds no such device here; use hardware.device=auto or cpu")
    if kind == "cuda" and colon and int(number) >= torch.cuda.device_count():
        raise UserError(f"hardware.device={name}: the GPUs here are numbered 0 to {torch.cuda.device_count() - 1}")
    return torch.device(name)
