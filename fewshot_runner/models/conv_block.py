"""A 3x3 convolution without bias, batch norm and ReLU, with max pooling or without: what small backbones are made of.

This is the one place that chooses how a block is computed, and how a convolution with pooling alone (`pooled`). All
ways give the same result up to rounding:

- plain: layer by layer. A block that is looked into by hooks, in mixed precision, or on a GPU in training, is plain;
- fused, in training on a CPU with large maps and pooling last: see fused.py; without batch norm, on a CPU with large
  maps of few filters: see conv_pool.py. `hardware.fuse_blocks=false` turns both off;
- folded, where no gradient is wanted and batch norm has statistics of its own: these are part of the convolution's
  weights then, and ReLU comes after pooling, which it commutes with; on a CPU, pooling is that of fused.py.
  `hardware.fold_batch_norm=false` turns it off.

Parameters have the names that they have in an `nn.Sequential` of the layers, so a checkpoint fits every way.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.models.conv_pool import conv_pool
from fewshot_runner.models.fused import conv_norm_relu_pool, conv_pool_values

POOLING = ("last", "first", "none")
LEAST_VALUES = 2**20  # of a map; below, the calls of a fused way cost more than it saves
FEW_FILTERS = 4


class ConvBlock(nn.Sequential):
    """(B, inputs, H, W) to (B, outputs, h, w); `pool`: "last", "first" (before batch norm) or "none"."""

    fuse_blocks: bool = True  # set by `Hardware`, as is the next
    fold_batch_norm: bool = True
    twice: bool = False  # whether gradients are going to be differentiated; see `differentiated_twice`

    def __init__(self, inputs: int, outputs: int, *, pool: str, stride: int = 1) -> None:
        assert pool in POOLING, pool
        assert stride == 1 or pool == "none", "pooling is fused with stride 1 alone"
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        norm, relu, pooling = nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
        layers = {"last": [norm, relu, pooling], "first": [pooling, norm, relu], "none": [norm, relu]}[pool]
        super().__init__(convolution, *layers)
        self.pool = pool
        self.norm_at = 1 + layers.index(norm)

    @property
    def norm(self) -> nn.BatchNorm2d:
        return self[self.norm_at]

    def forward(self, images: Tensor) -> Tensor:
        if not _is_simple(self, images):
            return super().forward(images)
        if self.norm.training:
            if self.pool == "last" and self.fuse_blocks and not self.twice and self._is_worth_fusing(images):
                return self._fused(images)
        elif self.fold_batch_norm and self.pool != "first" and self._can_be_folded(images):
            return self._folded(images)
        return super().forward(images)

    def _is_worth_fusing(self, images: Tensor) -> bool:
        """No scale may be zero: fused blocks do not allow it."""
        return _has_large_maps(self.norm.num_features, images) and bool(self.norm.weight.all())

    def _can_be_folded(self, images: Tensor) -> bool:
        """With statistics of its own, and where no gradient is wanted."""
        learned = images.requires_grad or any(parameter.requires_grad for parameter in self.parameters())
        return self.norm.running_mean is not None and not (learned and torch.is_grad_enabled())

    def _fused(self, images: Tensor) -> Tensor:
        norm = self.norm
        output, mean, variance = conv_norm_relu_pool(images, self[0].weight, norm.weight, norm.bias, norm.eps)
        if norm.track_running_stats:
            n_values = images.shape[0] * images.shape[2] * images.shape[3]
            norm.num_batches_tracked.add_(1)
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            # .data: torch's own batch norm changes them as well where a graph has kept them
            norm.running_mean.data.lerp_(mean, share)
            norm.running_var.data.lerp_(variance * (n_values / (n_values - 1)), share)  # the unbiased one
        return output

    def _folded(self, images: Tensor) -> Tensor:
        convolution, norm = self[0], self.norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight, bias = convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        if self.pool == "last" and images.device.type == "cpu":
            return conv_pool_values(images, weight, bias).relu_()
        maps = functional.conv2d(images, weight, bias, stride=convolution.stride, padding=1)
        return (functional.max_pool2d(maps, 2) if self.pool == "last" else maps).relu_()


def pooled(convolution: nn.Conv2d, pooling: nn.MaxPool2d, images: Tensor, *, fuse: bool) -> Tensor:
    """(B, C, H, W) to (B, F, h, w): 2x2 pooling after a 3x3 convolution of stride 1 that does not pad."""
    n_filters = len(convolution.weight)
    suitable = n_filters <= FEW_FILTERS and not images.requires_grad and _has_large_maps(n_filters, images)
    if fuse and suitable and _is_simple((convolution, pooling), images):
        return conv_pool(images, convolution.weight, convolution.bias)
    return pooling(convolution(images))


def _is_simple(layers: Iterable[nn.Module], images: Tensor) -> bool:
    hooked = any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
        for layer in layers
    )
    mixed = torch.is_autocast_enabled(images.device.type) or images.dtype not in (torch.float32, torch.float64)
    return not (hooked or mixed)


def _has_large_maps(n_filters: int, images: Tensor) -> bool:
    """Whether these are on a CPU, where fused ways save time if maps are large."""
    return images.device.type == "cpu" and len(images) * images.shape[2:].numel() * n_filters >= LEAST_VALUES


@contextmanager
def differentiated_twice(module: nn.Module, *, when: bool = True) -> Iterator[None]:
    """Plain blocks for what runs inside: fused ones would compute everything again for a second derivative."""
    blocks = [part for part in module.modules() if isinstance(part, ConvBlock)]
    before = [block.twice for block in blocks]
    try:
        for block in blocks:
            block.twice = when
        yield
    finally:
        for block, twice in zip(blocks, before, strict=True):
            block.twice = twice
