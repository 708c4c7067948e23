"""torch's optimisers without the compiler that they import.

torch marks some methods of its optimisers as not to be compiled, and that mark imports the compiler, which takes as
long as half of `import torch`. Nothing is compiled here, so a subclass calls the methods behind the marks.
"""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer

MARKED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def uncompiled(optimizer: Any) -> Any:
    """A subclass of one of torch's optimisers that does the same without the import; anything else as it is."""
    if not (inspect.isclass(optimizer) and issubclass(optimizer, Optimizer)):
        return optimizer
    if not optimizer.__module__.startswith("torch.optim."):
        return optimizer
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in MARKED}
    # the mark of `step` is also what turns gradients off in it
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)
