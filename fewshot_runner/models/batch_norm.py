"""Batch norm whose statistics are those of chosen images, for a while.

Which images a network may be normalised by decides what an evaluation measures (Bronskill et al. 2020,
https://arxiv.org/abs/2003.03284): the running statistics of training, those of the support images, or those of an
episode with all its queries, which is transductive.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BN_MODES = ("running", "support", "transductive")


@contextmanager
def normalised_by(module: nn.Module, forward: Callable[[], Tensor]) -> Iterator[Tensor]:
    """Runs `forward`, which passes images through `module`, and yields what it returns.

    Each batch norm normalises those images by their own mean and (biased) variance, as in training, and keeps to
    these for whatever passes until the end of the block. Afterwards it has its running statistics back.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    kept = [(layer.running_mean, layer.running_var, layer.training) for layer in layers]
    hooks = [layer.register_forward_pre_hook(_take_statistics) for layer in layers]
    try:
        for layer in layers:
            layer.training = False
        output = forward()
        for hook in hooks:
            hook.remove()
        yield output
    finally:
        for hook in hooks:
            hook.remove()
        for layer, (mean, variance, training) in zip(layers, kept, strict=True):
            layer.running_mean, layer.running_var, layer.training = mean, variance, training


def _take_statistics(layer: nn.Module, arguments: tuple[Tensor]) -> None:
    over = [dim for dim in range(arguments[0].dim()) if dim != 1]  # all but the channels
    images = arguments[0].detach().float()
    layer.running_mean, layer.running_var = images.mean(over), images.var(over, correction=0)
