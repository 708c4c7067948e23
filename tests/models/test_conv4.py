"""Conv4 against the plain functions, and against hand arithmetic."""

import pytest
import torch
from torch.nn import functional

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.conv4 import Conv4


def facts(channels: int = 1, size: int = 28) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


def seeded(model: torch.nn.Module) -> torch.nn.Module:
    """Random values in every parameter and buffer, so that no scale of 1 or shift of 0 hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point():
            value.data = torch.rand(value.shape, generator=generator) - 0.3 * (value.dim() > 1)
    return model


@pytest.mark.parametrize("pool_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_forward_equals_the_plain_functions(pool_first: bool, training: bool) -> None:
    model = seeded(Conv4(facts(channels=3, size=20), widths=(4, 6), pool_first=pool_first)).train(training)
    images = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    expected = images
    for block in range(2):
        norm = 2 if pool_first else 1  # place of the batch norm in the block
        names = ("running_mean", "running_var", "weight", "bias")
        statistics = [weights[f"blocks.{block}.{norm}.{name}"] for name in names]
        expected = functional.conv2d(expected, weights[f"blocks.{block}.0.weight"], padding=1)
        if pool_first:
            expected = functional.max_pool2d(expected, 2)
        expected = functional.batch_norm(expected, *statistics, training=training).clamp(min=0)
        if not pool_first:
            expected = functional.max_pool2d(expected, 2)

    torch.testing.assert_close(model(images), expected.reshape(5, 6 * 5 * 5))


@pytest.mark.parametrize(
    ("channels", "size", "widths", "features", "parameters"),
    [
        # 9 weights a pair of channels without bias, and 2 batch-norm parameters a filter
        (1, 28, (64, 64, 64, 64), 64, 9 * (1 * 64 + 3 * 64 * 64) + 2 * 4 * 64),  # = 111,680
        (3, 84, (64, 64, 64, 64), 1600, 9 * (3 * 64 + 3 * 64 * 64) + 2 * 4 * 64),
        (1, 105, (64, 64, 64, 64), 64 * 6 * 6, 111_680),
        (1, 20, (4, 6), 6 * 5 * 5, 9 * (4 + 24) + 2 * 10),
    ],
)
def test_sizes_by_hand(channels: int, size: int, widths: tuple, features: int, parameters: int) -> None:
    model = Conv4(facts(channels, size), widths=widths)
    assert model.out_features == features
    assert model(torch.zeros(2, channels, size, size)).shape == (2, features)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_an_image_too_small_to_halve_so_often_is_refused() -> None:
    Conv4(facts(size=16))
    with pytest.raises(UserError, match=r"dataset.image_size=15.* 16 pixels"):
        Conv4(facts(size=15))
