"""Convolution and pooling in one against torch's two layers, ties and second derivatives included."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_runner.facts import Facts
from fewshot_runner.models import conv_block, conv_pool
from fewshot_runner.models.conv_block import pooled
from fewshot_runner.models.siamese_cnn import SiameseCnn

LAYOUTS = [torch.channels_last, torch.contiguous_format]


@pytest.fixture(autouse=True)
def fuse_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_block, "LEAST_VALUES", 1)
    monkeypatch.setattr(conv_pool, "CHUNK", 4)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of images that went the fused way."""
    seen: list[int] = []
    original = conv_pool.conv_pool
    monkeypatch.setattr(
        conv_block, "conv_pool", lambda images, *rest: (seen.append(len(images)), original(images, *rest))[1]
    )
    return seen


def layers(channels: int, *, filters: int = 4, dtype: torch.dtype = torch.float64) -> tuple[nn.Conv2d, nn.MaxPool2d]:
    torch.manual_seed(0)
    return nn.Conv2d(channels, filters, 3).to(dtype), nn.MaxPool2d(2)


def drawings(n_images: int, channels: int, height: int, width: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Black strokes on white, where most windows are ties; one blank image, and one of noise."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(n_images, channels, height, width, generator=generator, dtype=dtype)
    images = (noise > 0.7).to(dtype)
    images[0], images[-1] = 0.5, noise[-1]
    return images


def results(way: Callable[[Tensor], Tensor], images: Tensor, convolution: nn.Conv2d) -> tuple[Tensor, ...]:
    """The maps and the gradients of filters and biases."""
    maps = way(images)
    arriving = torch.randn(maps.shape, generator=torch.Generator().manual_seed(2), dtype=maps.dtype)
    arriving = arriving.contiguous(memory_format=torch.channels_last)
    return maps.detach(), *torch.autograd.grad(maps, list(convolution.parameters()), arriving)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 11), (4, 4), (21, 20)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_equals_convolution_and_pooling(
    calls: list[int], layout: torch.memory_format, channels: int, height: int, width: int, dtype: torch.dtype,
    tolerance: float,
) -> None:  # fmt: skip
    convolution, pooling = layers(channels, dtype=dtype)
    convolution.to(memory_format=layout)
    images = drawings(7, channels, height, width, dtype=dtype).contiguous(memory_format=layout)
    ours = results(lambda seen: pooled(convolution, pooling, seen, fuse=True), images, convolution)
    theirs = results(lambda seen: pooling(convolution(seen)), images, convolution)
    assert calls == [7]
    assert ours[0].is_contiguous(memory_format=layout)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=tolerance * max(1.0, float(their.abs().max())))


def test_a_tie_goes_to_the_first_pixel_of_a_window() -> None:
    """By hand: the filter takes the pixel in the middle; each window's pixels are 1 where `largest` has one."""
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = 1
    for largest in range(1, 16):
        window = torch.tensor([largest >> place & 1 for place in range(4)]).view(2, 2)
        images = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
        images[0, 0, 1:3, 1:3] = window
        first = int(window.flatten().argmax())  # of the largest
        pixels = functional.conv2d(images, conv_pool._at_corners(weight), stride=2).unflatten(1, (4, 1))
        spread, gradient = torch.empty_like(pixels), torch.full_like(pixels[:, 0], 5.0)
        conv_pool._to_largest(gradient, pixels, torch.empty_like(pixels[:, :2]), spread)
        assert spread.flatten().tolist() == [5.0 if place == first else 0.0 for place in range(4)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_that_arrives_is_not_changed(layout: torch.memory_format) -> None:
    convolution, pooling = layers(1)
    convolution.to(memory_format=layout)
    maps = pooled(convolution, pooling, drawings(5, 1, 8, 8), fuse=True)
    arriving = torch.randn(maps.shape, dtype=maps.dtype).contiguous(memory_format=layout)
    before = arriving.clone()
    maps.backward(arriving)
    assert torch.equal(arriving, before)


def test_can_be_differentiated_twice() -> None:
    images = drawings(5, 1, 8, 8)[1:] + torch.rand(4, 1, 8, 8).double()  # without ties, at which a gradient jumps
    weight, bias = (parameter.detach().requires_grad_() for parameter in layers(1, filters=2)[0].parameters())

    def squares(weight: Tensor, bias: Tensor) -> Tensor:
        return conv_pool.conv_pool(images, weight, bias).square()

    assert torch.autograd.gradcheck(squares, (weight, bias))
    assert torch.autograd.gradgradcheck(squares, (weight, bias))


def test_taken_for_few_filters_and_images_without_gradient_alone(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = drawings(3, 1, 9, 9)
    pooled(*layers(1), images, fuse=True)
    assert calls == [3]
    pooled(*layers(1), images, fuse=False)
    pooled(*layers(1, filters=8), images, fuse=True)
    pooled(*layers(1), images.clone().requires_grad_(), fuse=True)
    hooked, pooling = layers(1)
    hooked.register_forward_hook(lambda *_: None)
    pooled(hooked, pooling, images, fuse=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled(*layers(1, dtype=torch.float32), images.float(), fuse=True)
    monkeypatch.setattr(conv_block, "LEAST_VALUES", 2**20)
    pooled(*layers(1), images, fuse=True)
    assert calls == [3]


def test_the_siamese_tutorials_network_takes_it(calls: list[int]) -> None:
    torch.manual_seed(0)
    network = SiameseCnn(Facts(image_shape=(1, 41, 40), n_classes=5, n_way=5))
    images = drawings(6, 1, 41, 40, dtype=torch.float32)
    found = []
    for network.fuse_blocks in (True, False):
        network.zero_grad()
        output = network(images)
        output.square().sum().backward()
        found.append([output.detach(), *(parameter.grad for parameter in network.parameters())])
    assert calls == [6]
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
