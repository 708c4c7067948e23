"""Koch et al.'s network against the sizes and the initial values of the paper."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.koch import Koch


def facts(channels: int = 1, size: int = 105) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


@pytest.fixture(scope="module")
def paper() -> Koch:
    torch.manual_seed(0)
    return Koch(facts())


def test_sizes_of_the_paper(paper: Koch) -> None:
    # 105 -> 96 -> 48 -> 42 -> 21 -> 18 -> 9 -> 6
    sizes = []
    maps = torch.rand(2, 1, 105, 105)
    with torch.no_grad():
        for layer in paper.layers:
            maps = layer(maps)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                sizes.append(tuple(maps.shape[1:]))
    assert sizes == [(64, 96, 96), (64, 48, 48), (128, 42, 42), (128, 21, 21), (128, 18, 18), (128, 9, 9), (256, 6, 6)]
    assert maps.shape == (2, 4096)
    assert paper.out_features == 4096
    assert 0 <= maps.min() < maps.max() <= 1
    by_hand = [
        64 * (10 * 10 * 1 + 1),
        128 * (7 * 7 * 64 + 1),
        128 * (4 * 4 * 128 + 1),
        256 * (4 * 4 * 128 + 1),
        4096 * (9216 + 1),
    ]
    assert by_hand == [6_464, 401_536, 262_272, 524_544, 37_752_832]
    counts = [p.numel() for p in paper.parameters()]
    assert [w + b for w, b in zip(counts[::2], counts[1::2], strict=True)] == by_hand
    assert sum(counts) == 38_947_648


def test_initial_values_of_the_paper(paper: Koch) -> None:
    """Mean and spread within six standard errors, s / sqrt(n) and s / sqrt(2n), and the shape of a normal one."""

    def drawn_from(value: torch.Tensor, mean: float, spread: float) -> None:
        n = value.numel()
        assert abs(value.mean().item() - mean) < 6 * spread / n**0.5
        assert abs(value.std().item() - spread) < 6 * spread / (2 * n) ** 0.5
        assert stats.kstest(value.flatten()[:10_000], "norm", args=(mean, spread)).pvalue > 1e-6

    layers = [layer for layer in paper.layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 5
    for layer in layers:
        drawn_from(layer.weight.data, 0, 0.2 if isinstance(layer, nn.Linear) else 0.01)
        drawn_from(layer.bias.data, 0.5, 0.01)


def test_forward_equals_the_plain_functions() -> None:
    torch.manual_seed(1)
    model = Koch(facts(channels=3, size=32), widths=(3, 4, 5, 6), kernels=(5, 3, 2, 2), features=7)
    images = torch.rand(2, 3, 32, 32)
    values = list(model.parameters())
    expected = images
    for number in range(4):
        expected = functional.conv2d(expected, values[2 * number], values[2 * number + 1]).clamp(min=0)
        if number < 3:
            expected = functional.max_pool2d(expected, 2)
    expected = 1 / (1 + torch.exp(-(expected.reshape(2, -1) @ values[8].T + values[9])))
    torch.testing.assert_close(model(images), expected)
    assert model.out_features == 7


@pytest.mark.parametrize(("kernels", "smallest"), [((10, 7, 4, 4), 65), ((5, 3, 2, 2), 28)])
def test_images_too_small_for_the_kernels_are_refused(kernels: tuple, smallest: int) -> None:
    # backwards from k: poolings need twice as many pixels and convolutions k - 1 more, 4 -> 8+3 -> 22+6 -> 56+9
    few = {"widths": (1, 1, 1, 1), "kernels": kernels, "features": 2}
    assert Koch(facts(size=smallest), **few)(torch.zeros(1, 1, smallest, smallest)).shape == (1, 2)
    with pytest.raises(UserError, match=rf"dataset\.image_size={smallest - 1}: .*model\.kernels"):
        Koch(facts(size=smallest - 1), **few)


@pytest.mark.parametrize("options", [{"widths": (64, 128)}, {"kernels": (3, 3, 3, 0)}, {"features": 0}])
def test_impossible_widths_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"model\.widths="):
        Koch(facts(), **options)
