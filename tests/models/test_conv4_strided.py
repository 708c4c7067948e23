"""Conv4Strided against the plain functions, and against hand arithmetic."""

import pytest
import torch
from torch.nn import functional

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.conv4_strided import Conv4Strided


def facts(channels: int = 1, size: int = 28) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [11, 20])
def test_forward_equals_the_plain_functions(training: bool, size: int) -> None:
    """A stride of 2 keeps every other place, from the first, of what a stride of 1 gives."""
    model = Conv4Strided(facts(channels=3, size=size), widths=(4, 6)).train(training)
    generator = torch.Generator().manual_seed(0)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point():  # no scale of 1 or shift of 0 that hides a mistake
            value.data = torch.rand(value.shape, generator=generator) - 0.3 * (value.dim() > 1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(5, 3, size, size, generator=generator)

    expected = images
    for block in range(2):
        expected = functional.conv2d(expected, weights[f"blocks.{block}.0.weight"], padding=1)[..., ::2, ::2]
        statistics = [weights[f"blocks.{block}.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        expected = functional.batch_norm(expected, *statistics, training=training).clamp(min=0)

    torch.testing.assert_close(model(images), expected.flatten(1))


@pytest.mark.parametrize(
    ("channels", "size", "widths", "features", "parameters"),
    [
        # sides 28, 14, 7, 4, 2; 9 weights a pair of channels without bias, and 2 batch-norm parameters a filter
        (1, 28, (64, 64, 64, 64), 64 * 2 * 2, 9 * (1 * 64 + 3 * 64 * 64) + 2 * 4 * 64),  # = 111,680
        (3, 84, (64, 64, 64, 64), 64 * 6 * 6, 9 * (3 * 64 + 3 * 64 * 64) + 2 * 4 * 64),  # 84, 42, 21, 11, 6
        (1, 11, (4, 6), 6 * 3 * 3, 9 * (4 + 24) + 2 * 10),  # 11, 6, 3
    ],
)
def test_sizes_by_hand(channels: int, size: int, widths: tuple, features: int, parameters: int) -> None:
    model = Conv4Strided(facts(channels, size), widths=widths)
    assert model.out_features == features
    assert model(torch.zeros(2, channels, size, size)).shape == (2, features)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("widths", [(), (64, 0)])
def test_blocks_without_filters_are_refused(widths: tuple) -> None:
    with pytest.raises(UserError, match=r"model\.widths="):
        Conv4Strided(facts(), widths=widths)
