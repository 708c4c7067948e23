"""Batch norm whose statistics are those of chosen images, for a while.

Which images a network may be normalised by decides what an evaluation measures (Bronskill et al. 2020,
https://arxiv.org/abs/2003.03284): the running statistics of training, those of the support images, or those of an
episode with all its queries, which is transductive.

A frozen batch norm keeps to the statistics it came with in every one of these modes, as it does in training: what the
rest of the network has learned rests on them. So a fully frozen backbone answers the same in every mode. To normalise a
pretrained one by other images, leave it unfrozen and do not train it (trainer.max_steps=0).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def learning_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms that are not frozen. One that has no weights of its own is taken not to be.

    Modes do not tell them: in evaluation they are the same for all.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    return [layer for layer in layers if layer.weight is None or layer.weight.requires_grad]


def takes_single_images(module: nn.Module, shape: Sequence[int]) -> bool:
    """Whether a batch of one image (C, H, W) can be normalised in training: a map of one pixel has no variance."""
    device = next((parameter.device for parameter in module.parameters()), None)
    try:
        with torch.no_grad():
            copy.deepcopy(module).train()(torch.zeros(1, *shape, device=device))
    except ValueError:  # torch's
        return False
    return True


@contextmanager
def normalised_by(module: nn.Module, forward: Callable[[], Tensor]) -> Iterator[Tensor]:
    """Runs `forward`, which passes images through `module`, and yields what it returns.

    Each batch norm that is not frozen normalises those images by their own mean and (biased) variance, as in training,
    and keeps to these for whatever passes until the end of the block. Afterwards it has its running statistics back.
    """
    layers = learning_norms(module)
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
    images = arguments[0].detach()
    images = images.to(torch.promote_types(images.dtype, torch.float32))  # half as many bits are too few for a variance
    layer.running_mean, layer.running_var = images.mean(over), images.var(over, correction=0)
