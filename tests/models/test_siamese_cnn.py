"""The tutorial's network against its published sizes."""

import pytest
import torch
from torch.nn import functional

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.siamese import Siamese
from fewshot_runner.models.siamese_cnn import SiameseCnn


def facts(channels: int = 1, size: int = 105) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_the_tutorial() -> None:
    model = SiameseCnn(facts())
    # 105 -> 103 -> 51 -> 49 -> 24 -> 22 -> 11 -> 9, 32 channels
    assert model.out_features == 2592 == 32 * 9 * 9
    assert model(torch.zeros(2, 1, 105, 105)).shape == (2, 2592)
    # (9 in + 1) out, per convolution: 40 + 592 + 4,640 + 9,248
    assert count(model) == 14_520
    # the tutorial's head, 2592 -> 256 -> 1: 663,808 + 257
    assert count(Siamese(model, hidden=256)) == 14_520 + 663_808 + 257


def test_forward_equals_the_plain_functions() -> None:
    torch.manual_seed(0)
    model = SiameseCnn(facts(channels=3, size=40))
    images = torch.rand(2, 3, 40, 40)
    layers = list(model.named_parameters())
    expected = images
    for number, ((_, weight), (_, bias)) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
        expected = functional.conv2d(expected, weight, bias).clamp(min=0)
        if number < 3:
            expected = functional.max_pool2d(expected, 2)
    assert number == 3
    torch.testing.assert_close(model(images), expected.reshape(2, -1))


@pytest.mark.parametrize("size", [38, 39, 64])
def test_out_features_are_what_comes_out(size: int) -> None:
    model = SiameseCnn(facts(size=size))
    assert model(torch.zeros(1, 1, size, size)).shape == (1, model.out_features)


def test_an_image_too_small_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.image_size=37"):
        SiameseCnn(facts(size=37))


@pytest.mark.parametrize("blank", [True, False])
def test_pooling_before_relu_gives_the_same_bits(blank: bool) -> None:
    torch.manual_seed(0)
    model = SiameseCnn(facts(size=41))
    images = torch.zeros(3, 1, 41, 41) if blank else torch.randn(3, 1, 41, 41)  # blank: each window is one tie
    convolutions = [layer for layer in model.layers if isinstance(layer, torch.nn.Conv2d)]
    results = []
    for ours_first in (True, False):
        model.zero_grad()
        seen = images.clone().requires_grad_()
        maps = seen
        for number, convolution in enumerate(convolutions):
            maps = convolution(maps).relu()
            maps = functional.max_pool2d(maps, 2) if number < 3 else maps
        output = model(seen) if ours_first else maps.flatten(1)
        output.square().sum().backward()
        results.append([output.detach(), seen.grad, *(parameter.grad for parameter in model.parameters())])
    for ours, tutorials in zip(*results, strict=True):
        assert torch.equal(ours, tutorials)
    assert results[0][0].any()
