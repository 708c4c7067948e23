"""Convolution, batch norm, ReLU and 2x2 max pooling in training: the same numbers with less memory moved.

On a CPU most of such a block's time goes into reading and writing maps. Where batch norm's scale is positive,
normalisation and ReLU keep the order of values, so the maximum of a window may be taken before them: statistics come
from the full map, all else from the pooled quarter of it. A negative scale is made positive by negating the filter,
which is exact. Backwards, the gradient is spread over the full map once, and torch's own batch norm gradient follows.
Where a scale is so small that plain batch norm rounds a whole window to one value, plain takes that window's first
pixel and fused its true largest, so gamma's gradient differs: fused is right in exact arithmetic.

Where the input needs no gradient and has few channels, as images do, the full map is never kept. A pixel of it is the
product of a filter w and a patch p of the image, so its mean over all pixels is w . mean(p), and its variance is
w . cov(p) . w: the patches of nine pixels are counted once, in float64, and autograd finds the gradient of both.
Convolution and pooling then pass over a few images at a time, which stay in the processor's cache.

Where no gradient is wanted at all, nobody asks where a window has its maximum: the greater of two rows and of two
columns is found in half the time that torch's pooling takes, which looks for the places too.

What is differentiated twice is done again by the plain functions, from which each class below says what it computes.

Shapes: B images, C channels, F filters, H and W pixels; h = H // 2, w = W // 2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

aten = torch.ops.aten

WINDOW = [2, 2]
CHUNK_VALUES = 2**20  # of a map, 4 MB in float32, what the caches of two cores hold; half of it costs more in calls
FEW_CHANNELS = 3


def conv_norm_relu_pool(images: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
    """(B, C, H, W) and filters (F, C, 3, 3), padded by 1, to (B, F, h, w); and the map's mean and biased variance (F,).

    No value of `gamma` (F,) may be zero: a constant has its maximum everywhere.
    """
    sign = torch.where(gamma < 0, -1.0, 1.0).to(gamma.dtype)
    weight, gamma = weight * sign[:, None, None, None], gamma * sign
    if not images.requires_grad and images.shape[1] <= FEW_CHANNELS:
        mean, variance = map_moments(images, weight)
        output = _Normalise.apply(_PaddedConvPool.apply(images, weight), gamma, beta, mean, variance, eps).relu_()
    else:
        output, mean, variance = _NormReluPool.apply(functional.conv2d(images, weight, padding=1), gamma, beta, eps)
    return output, mean.detach() * sign, variance.detach()


def conv_pool_values(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Images (B, C, H, W), filters (F, C, 3, 3), padded by 1, and biases (F,) to (B, F, h, w), without gradients."""
    of_image = len(weight) * images.shape[2:].numel()
    chunk = 2 ** max(0, (CHUNK_VALUES // of_image).bit_length() - 1)  # oneDNN's last bits differ at odd numbers
    return torch.cat([largest(functional.conv2d(some, weight, bias, padding=1)) for some in images.split(chunk)])


def largest(maps: Tensor) -> Tensor:
    """(B, F, H, W) to (B, F, h, w): the maximum of each window of 2x2 pixels."""
    height, width = (size // 2 * 2 for size in maps.shape[2:])
    rows = torch.maximum(maps[:, :, 0:height:2], maps[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def map_moments(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (F,) over all pixels of the images' convolution with `weight`, padded by 1.

    From the moments of what the filters see: a few images at a time, as patches have nine times as many values.
    """
    with torch.no_grad():
        centre = images.mean(dtype=torch.double)  # taken away first, so that large values cancel exactly
        sums = products = 0
        for some in images.split(max(1, CHUNK_VALUES // (9 * images[0].numel()))):
            patches = patches_of(some.double(), centre)
            sums = sums + patches.sum(dim=(0, 2))  # (9 C,)
            products = products + torch.bmm(patches, patches.mT).sum(0)  # (9 C, 9 C)
        count = len(images) * images.shape[2:].numel()
        mean_patch = sums / count
        covariance = products / count - torch.outer(mean_patch, mean_patch)
    filters = weight.flatten(1).double()  # (F, 9 C)
    mean, variance = filters @ (mean_patch + centre), ((filters @ covariance) * filters).sum(dim=1)
    return mean.to(weight.dtype), variance.to(weight.dtype)


def patches_of(images: Tensor, centre: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 9 C, H W): what 3x3 filters see at each place of images padded by 1, less `centre`."""
    n_images, channels, height, width = images.shape
    padded = functional.pad(images, (1, 1, 1, 1)) - centre
    of_image, of_channel, of_row, of_column = padded.stride()
    windows = padded.as_strided(
        (n_images, channels, 3, 3, height, width), (of_image, of_channel, of_row, of_column, of_row, of_column)
    )
    return windows.reshape(n_images, 9 * channels, height * width)


class _NormReluPool(Function):
    """(B, F, H, W) to (B, F, h, w), mean and variance (F,); `gamma` is positive, mean and variance have no gradient."""

    @staticmethod
    def plain(maps: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        normal = functional.batch_norm(maps, None, None, gamma, beta, training=True, eps=eps)
        return functional.max_pool2d(functional.relu(normal), 2)

    @staticmethod
    def forward(ctx: Any, maps: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = torch.batch_norm_update_stats(maps, None, None, 0.0)
        pooled, places = aten.max_pool2d_with_indices(maps, WINDOW, WINDOW)
        output = functional.batch_norm(pooled, mean, variance, gamma, beta, eps=eps).relu_()
        ctx.save_for_backward(maps, gamma, beta, output, places, mean, torch.rsqrt(variance + eps))
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        maps, gamma, beta, output, places, mean, inverse_std = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *plain_gradients(_NormReluPool.plain, (maps, gamma, beta), ctx.eps, gradient=gradient), None
        spread = _spread(aten.threshold_backward(gradient, output, 0), maps, places)
        return *aten.native_batch_norm_backward(
            spread, maps, gamma, None, None, mean, inverse_std, True, ctx.eps, [True, True, True]
        ), None  # fmt: skip


class _PaddedConvPool(Function):
    """Images (B, C, H, W), which get no gradient, and filters (F, C, 3, 3) to (B, F, h, w)."""

    @staticmethod
    def plain(images: Tensor, weight: Tensor) -> Tensor:
        return functional.max_pool2d(functional.conv2d(images, weight, padding=1), 2)

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        (n_images, _, height, width), filters = images.shape, len(weight)
        pooled = _empty_maps((n_images, filters, height // 2, width // 2), weight)
        places = torch.empty_like(pooled, dtype=torch.long)
        n_chunks = -(-n_images * filters * height * width // CHUNK_VALUES)
        chunk = -(-n_images // n_chunks)
        for of, to, at in zip(images.split(chunk), pooled.split(chunk), places.split(chunk), strict=True):
            aten.max_pool2d_with_indices.out(
                functional.conv2d(of, weight, padding=1), WINDOW, WINDOW, out=to, indices=at
            )
        ctx.save_for_backward(images, weight, places)
        ctx.chunk = chunk
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        images, weight, places = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *plain_gradients(lambda w: _PaddedConvPool.plain(images, w), (weight,), gradient=gradient)
        total = torch.zeros_like(weight)
        for of, arriving, at in zip(*(each.split(ctx.chunk) for each in (images, gradient, places)), strict=True):
            maps = _empty_maps((len(of), len(weight), *of.shape[2:]), weight)  # for its shape alone
            spread = _spread(arriving, maps, at)
            total += aten.convolution_backward(
                spread, of, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
            )[1]
        return None, total


class _Normalise(Function):
    """(B, F, h, w) normalised by given moments (F,), to which gradients flow as well."""

    @staticmethod
    def plain(maps: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        scale = gamma * torch.rsqrt(variance + eps)
        return maps * scale[:, None, None] + (beta - mean * scale)[:, None, None]

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(maps, gamma, beta, mean, variance)
        ctx.eps = eps
        return functional.batch_norm(maps, mean, variance, gamma, beta, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, gamma, _, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *plain_gradients(_Normalise.plain, ctx.saved_tensors, ctx.eps, gradient=gradient), None
        d_maps, d_gamma, d_beta = aten.native_batch_norm_backward(
            gradient, maps, gamma, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        inverse_std = torch.rsqrt(variance + ctx.eps)
        scale = gamma * inverse_std
        return d_maps, d_gamma, d_beta, -d_beta * scale, -0.5 * d_gamma * scale * inverse_std, None


def _spread(gradient: Tensor, maps: Tensor, places: Tensor) -> Tensor:
    """(B, F, h, w) to (B, F, H, W): each value where its window had the first of its largest values, zero elsewhere."""
    return aten.max_pool2d_with_indices_backward(gradient, maps, WINDOW, WINDOW, [0, 0], [1, 1], False, places)


def _empty_maps(shape: Sequence[int], weight: Tensor) -> Tensor:
    """Like what comes out of a convolution with `weight`: its memory format and type."""
    channels_last = weight.stride(1) == 1
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=layout)


def plain_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], *options: Any, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again, at the price of computing `function` once more."""
    needed = [each for each in inputs if each.requires_grad]
    found = iter(torch.autograd.grad(function(*inputs, *options), needed, gradient, create_graph=True))
    return tuple(next(found) if each.requires_grad else None for each in inputs)
