"""The branch network against hand arithmetic and the plain functions."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.branch import Branch

SMALL = {"widths": (3, 4, 5, 6, 7), "bottlenecks": (2, 3, 2, 3)}


def facts(channels: int = 1, size: int = 384) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


def test_parameters_by_hand() -> None:
    def convolution(inputs: int, outputs: int, side: int) -> int:
        return outputs * (inputs * side * side + 1)

    def norm(channels: int) -> int:
        return 2 * channels

    total = convolution(1, 64, 9) + 2 * (norm(64) + convolution(64, 64, 3))
    for inputs, outputs, narrow in ((64, 128, 64), (128, 256, 64), (256, 384, 96), (384, 512, 128)):
        block = norm(outputs) + convolution(outputs, narrow, 1) + norm(narrow) + convolution(narrow, narrow, 3)
        block += norm(narrow) + convolution(narrow, outputs, 1)
        total += norm(inputs) + convolution(inputs, outputs, 1) + 4 * block
    model = Branch(facts())
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    # published for the original: 55 convolutions, 1 + 2 + 4 * (1 + 4 * 3), and 5 poolings
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 55
    assert sum(isinstance(module, nn.MaxPool2d) for module in model.modules()) == 5
    assert model.out_features == 512


def test_the_resolutions_of_the_original() -> None:
    model = Branch(facts(), **SMALL)
    sides = []
    for layer in model.layers:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 1, 384, 384)).shape == (1, 7)
    assert sides == [192, 96, 96, 48, 24, 12, 6]


@pytest.mark.parametrize("training", [False, True])
def test_forward_equals_the_plain_functions(training: bool) -> None:
    torch.manual_seed(0)
    model = Branch(facts(channels=3, size=140), **SMALL, depth=2).train(training)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point():
            value.data = torch.rand(value.shape) - 0.3 * (value.dim() > 1)
    images = torch.rand(4, 3, 140, 140)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    convolutions = iter([name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)])
    norms = iter([name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)])

    def convolved(maps: torch.Tensor, padding: int = 0, stride: int = 1) -> torch.Tensor:
        name = next(convolutions)
        return functional.conv2d(maps, kept[f"{name}.weight"], kept[f"{name}.bias"], stride, padding)

    def normalised(maps: torch.Tensor) -> torch.Tensor:
        name = next(norms)
        values = [kept[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(maps, *values, training=training)

    maps = functional.max_pool2d(convolved(images, padding=4, stride=2).clamp(min=0), 2)
    for _ in range(2):
        maps = convolved(normalised(maps), padding=1).clamp(min=0)
    for _ in range(4):
        maps = convolved(normalised(functional.max_pool2d(maps, 2))).clamp(min=0)
        for _ in range(2):
            start = normalised(maps)
            change = normalised(convolved(start).clamp(min=0))
            change = normalised(convolved(change, padding=1).clamp(min=0))
            maps = (start + convolved(change)).clamp(min=0)
    assert maps.shape == (4, 7, 2, 2)
    torch.testing.assert_close(model(images), maps.flatten(2).max(2).values, rtol=1e-4, atol=1e-4)


def test_a_mark_counts_wherever_it_is() -> None:
    torch.manual_seed(0)
    model = Branch(facts(size=384), **SMALL, depth=0).eval()
    images = torch.zeros(2, 1, 384, 384)
    mark = 100 * torch.rand(20, 20)
    images[0, 0, 100:120, 100:120] = mark
    images[1, 0, 164:184, 228:248] = mark  # moved by multiples of the last step of 64 pixels
    with torch.no_grad():
        features = model(images)
    assert not torch.allclose(features[0], model(torch.zeros(1, 1, 384, 384))[0])
    torch.testing.assert_close(features[0], features[1])


def test_64_pixels_are_the_least() -> None:
    assert Branch(facts(size=64), **SMALL)(torch.rand(2, 1, 64, 64)).shape == (2, 7)
    with pytest.raises(UserError, match=r"dataset\.image_size=63: .*64 pixels"):
        Branch(facts(size=63))


@pytest.mark.parametrize("options", [{"widths": (64, 128)}, {"bottlenecks": (64, 64, 96, 0)}, {"depth": -1}])
def test_impossible_widths_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"model\.widths="):
        Branch(facts(), **options)
