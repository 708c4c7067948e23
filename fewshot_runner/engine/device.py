"""The one place that chooses the device, threads, precision, memory format and which fast paths are taken."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from fewshot_runner.cores import available_cores
from fewshot_runner.engine.memory import keep_freed_memory
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import evaluating

PRECISIONS = {"float32": None, "tf32": None, "bfloat16": torch.bfloat16}  # what mixed precision computes in


class Hardware:
    """`device`: auto, cpu, cuda (or cuda:1 ...) or mps; `threads`: "auto" for one a core.

    `precision`: float32; tf32, the same but that an Nvidia GPU may round what enters a convolution to 10 bits, as torch
    lets it unless told otherwise; or bfloat16, mixed with float32. `deterministic`: a GPU takes only ways that give the
    same bits again, where torch has one, and warns where it has none; a CPU always does.

    Fast paths with the same results up to rounding: `fuse_blocks` and `fold_batch_norm` (see models/conv_block.py),
    `tasks_side_by_side` (see methods/side_by_side.py), `keep_memory` (see memory.py; once on, it stays on in the
    process), and `compile`, which compiles the backbone when it is first used; that takes a minute or more.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        threads: int | str = "auto",
        precision: str = "float32",
        deterministic: bool = True,
        channels_last: bool = True,
        fuse_blocks: bool = True,
        fold_batch_norm: bool = True,
        tasks_side_by_side: bool = True,
        keep_memory: bool = True,
        compile: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"hardware.precision={precision}: choose one of {', '.join(PRECISIONS)}")
        if threads != "auto" and (isinstance(threads, str) or threads < 1):
            raise UserError(f"hardware.threads={threads}: give auto or a whole number of 1 or more")
        self.device = choose_device(device)
        self.threads = available_cores() if threads == "auto" else int(threads)
        self.precision = PRECISIONS[precision]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.fast_paths = {  # by the attribute of the modules that have them
            "fuse_blocks": fuse_blocks and not compile,
            "fold_batch_norm": fold_batch_norm and not compile,
            "tasks_side_by_side": tasks_side_by_side,
        }
        self.compile = compile
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        set_deterministic(deterministic and self.device.type == "cuda")
        if compile:
            check_compiler()
        if keep_memory and self.device.type == "cpu":
            keep_freed_memory()

    def place(self, module: nn.Module, network: nn.Module | None = None) -> nn.Module:
        """Moves a module here, its 4-dimensional parameters in the chosen memory format, and sets its fast paths.

        `network` is the backbone of a method, the part that `compile` is for. Raises `UserError` where the method
        needs what a compiled one cannot do.
        """
        for part in module.modules():
            for name, wanted in self.fast_paths.items():
                if hasattr(part, name):
                    setattr(part, name, wanted)
        module.to(self.device, memory_format=self.memory_format)
        if self.compile and network is not None:
            if module.differentiates_twice:
                raise UserError(
                    "hardware.compile=true: a compiled backbone has no second derivatives, and this method takes them; "
                    "set hardware.compile=false, or for MAML method.learner.order=1"
                )
            compile_in_place(network)
        return module

    def seed(self, seed: int) -> None:
        """Of torch's own generators, on the CPU and here. `torch.manual_seed` looks for GPUs at every call."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def autocast(self) -> AbstractContextManager:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    @contextmanager
    def inference(self, module: nn.Module) -> Iterator[None]:
        """Evaluation mode of `module` without gradients, in the precision of the hardware."""
        with torch.no_grad(), evaluating(module), self.autocast():
            yield

    def keep(self, pixels: Tensor) -> Tensor:
        """The pixels on the device where they fit into a third of its free memory, else where they are."""
        if self.device.type == "cuda" and pixels.nbytes < torch.cuda.mem_get_info(self.device)[0] / 3:
            return pixels.to(self.device)
        return pixels


def set_deterministic(wanted: bool) -> None:
    """Whether torch takes deterministic ways alone from now on, and warns where there is none.

    https://docs.pytorch.org/docs/stable/generated/torch.set_deterministic_debug_mode.html
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.set_deterministic_debug_mode("warn" if wanted else "default")
    torch.utils.deterministic.fill_uninitialized_memory = not wanted  # a guard for what reads it, at a price
    torch.backends.cudnn.deterministic = wanted


def check_compiler() -> None:
    """Raises `UserError` unless torch.compile finds the compiler that it needs."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")):
        raise UserError(
            "hardware.compile=true: torch.compile needs a C++ compiler, and none is found; install g++, or set "
            "hardware.compile=false"
        )


def compile_in_place(module: nn.Module) -> None:
    """Compiles the forward pass, for every mode; names of parameters stay as they are."""
    import torch._dynamo  # half as long as `import torch`

    torch._dynamo.config.skip_nnmodule_hook_guards = False  # hooks set later, as for batch norm's modes, do count
    module.compile()


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
