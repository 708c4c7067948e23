"""A 3x3 convolution of few filters and 2x2 max pooling on a CPU: the same numbers, with whole vectors at work.

Maps of four channels leave most lanes of a processor's vectors empty, and pooling them costs more than making them. But
the four pixels of a window are what one 4x4 patch of the image yields under the filter at four places. So each filter
becomes four of 4x4 pixels, with zeros at two of their sides; with stride 2 they give the window's four pixels as four
maps of a quarter of the size, and pooling is the largest of four values that lie in separate maps. Backwards, the
gradient goes to the first of the largest, as in torch's pooling: to the right one of two pixels if it is greater than
the left, to the lower row if its greater pixel exceeds that of the upper.

Shapes: B images, C channels, F filters, H and W pixels; h = (H - 2) // 2, w = (W - 2) // 2.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from fewshot_runner.models.fused import plain_gradients

aten = torch.ops.aten

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the filter in its 4x4 pixels: the pixels of a window, row by row
CHUNK = 16  # images at a time in the backward pass


def conv_pool(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Images (B, C, H, W), which get no gradient, filters (F, C, 3, 3) and biases (F,) to (B, F, h, w)."""
    return _ConvPool.apply(images, weight, bias)


class _ConvPool(Function):
    @staticmethod
    def plain(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.max_pool2d(functional.conv2d(images, weight, bias), 2)

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        images = images.contiguous().flatten().view(images.shape)  # one channel's strides could mean channels_last
        height, width = ((size - 2) // 2 for size in images.shape[2:])
        pixels = functional.conv2d(images, _at_corners(weight), bias.repeat(4), stride=2)[..., :height, :width]
        pixels = pixels.reshape(len(images), 4, len(weight), height, width)
        ctx.save_for_backward(images, weight, bias, pixels)
        layout = torch.channels_last if weight.stride(1) == 1 else torch.contiguous_format
        return pixels.amax(dim=1).contiguous(memory_format=layout)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        images, weight, bias, pixels = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *plain_gradients(lambda w, b: _ConvPool.plain(images, w, b), (weight, bias), gradient=gradient)
        filters, n_filters = _at_corners(weight), len(weight)
        total = torch.zeros_like(filters)
        spread, scratch = torch.empty_like(pixels[:CHUNK]), torch.empty_like(pixels[:CHUNK, :2])  # stay in the cache
        for of, arriving, window in zip(*(each.split(CHUNK) for each in (images, gradient, pixels)), strict=True):
            maps = spread[: len(of)]
            _to_largest(arriving.clone(memory_format=torch.contiguous_format), window, scratch[: len(of)], out=maps)
            total += aten.convolution_backward(
                maps.flatten(1, 2), of, filters, None, [2, 2], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
            )[1]
        parts = total.unflatten(0, (4, n_filters))
        found = sum(part[:, :, i : i + 3, j : j + 3] for part, (i, j) in zip(parts, CORNERS, strict=True))
        return None, found, gradient.sum(dim=(0, 2, 3))


def _at_corners(weight: Tensor) -> Tensor:
    """Filters (F, C, 3, 3) to (4 F, C, 4, 4): all of them at the first corner, then all at the second, and so on."""
    filters = weight.new_zeros(4, *weight.shape[:2], 4, 4)
    for corner, (i, j) in zip(filters, CORNERS, strict=True):
        corner[:, :, i : i + 3, j : j + 3] = weight
    return filters.flatten(0, 1)


def _to_largest(gradient: Tensor, pixels: Tensor, scratch: Tensor, out: Tensor) -> None:
    """(B, F, h, w) to `out` (B, 4, F, h, w): each value to the first of the four `pixels` that are largest, else zero.

    `scratch` is (B, 2, F, h, w); it and the gradient are overwritten.
    """
    first, second, third, fourth = pixels.unbind(1)
    (excess, lower), to = scratch.unbind(1), out.unbind(1)
    torch.maximum(third, fourth, out=excess).sub_(torch.maximum(first, second, out=lower))
    _part(gradient, excess, out=lower, rest=gradient)
    _part(gradient, torch.sub(second, first, out=excess), out=to[1], rest=to[0])
    _part(lower, torch.sub(fourth, third, out=excess), out=to[3], rest=to[2])


def _part(gradient: Tensor, excess: Tensor, out: Tensor, rest: Tensor) -> None:
    """The gradient to `out` where the excess is positive, and to `rest` where it is not; zero to the other."""
    aten.threshold_backward.grad_input(gradient, excess, 0, grad_input=out)
    torch.sub(gradient, out, out=rest)
