"""The encoder with local response normalisation, against hand arithmetic and a slow normalisation."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.lrn_encoder import LrnEncoder


def facts(channels: int = 1, size: int = 105) -> Facts:
    return Facts(image_shape=(channels, size, size), n_classes=5, n_way=5)


def test_sizes_of_the_tutorials() -> None:
    model = LrnEncoder(facts())
    # 105 -> 95 -> 47 -> 47 -> 23 -> 23 -> 11, and 256 x 11 x 11 = 30,976 into the first linear layer
    by_hand = [
        96 * (11 * 11 * 1 + 1),
        256 * (5 * 5 * 96 + 1),
        384 * (3 * 3 * 256 + 1),
        256 * (3 * 3 * 384 + 1),
        1024 * (30_976 + 1),
        128 * (1024 + 1),
        2 * (128 + 1),
    ]
    counts = [parameter.numel() for parameter in model.parameters()]
    assert [w + b for w, b in zip(counts[::2], counts[1::2], strict=True)] == by_hand
    assert model.out_features == 2
    assert model(torch.zeros(2, 1, 105, 105)).shape == (2, 2)


def slow_response_norm(maps: torch.Tensor) -> torch.Tensor:
    """Each value by the squares of itself and two channels on either side (Krizhevsky et al. 2012, section 3.3).

    torch averages the squares over the five where the paper adds them up: alpha / 5.
    """
    channels = maps.shape[1]
    rows = []
    for channel in range(channels):
        near = maps[:, max(0, channel - 2) : channel + 3]
        rows.append(maps[:, channel] / (2 + 1e-4 / 5 * (near**2).sum(1)) ** 0.75)
    return torch.stack(rows, dim=1)


def test_forward_equals_the_plain_functions() -> None:
    torch.manual_seed(1)
    model = LrnEncoder(facts(channels=3, size=29), features=[6, 5]).eval()
    images = 30 * torch.rand(2, 3, 29, 29)  # strong enough for the normalisation to show
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5, w6, b6 = model.parameters()

    def pooled(maps: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(maps, 3, 2)

    maps = pooled(slow_response_norm(functional.conv2d(images, w1, b1).clamp(min=0)))
    maps = pooled(slow_response_norm(functional.conv2d(maps, w2, b2, padding=2).clamp(min=0)))
    maps = functional.conv2d(maps, w3, b3, padding=1).clamp(min=0)
    maps = pooled(functional.conv2d(maps, w4, b4, padding=1).clamp(min=0))
    expected = (maps.reshape(2, 256) @ w5.T + b5).clamp(min=0) @ w6.T + b6
    torch.testing.assert_close(model(images), expected)
    assert model.out_features == 5


def test_dropout_is_where_the_paper_has_it() -> None:
    layers = LrnEncoder(facts(size=32), features=[8, 4, 2], dropout=0.1, linear_dropout=0.2).layers
    kinds = [type(layer) for layer in layers]
    maps = [number for number, kind in enumerate(kinds) if kind is nn.Dropout2d]
    assert [layers[number].p for number in maps] == [0.1, 0.1]
    assert [kinds[number - 1] for number in maps] == [nn.MaxPool2d, nn.MaxPool2d]
    assert kinds[kinds.index(nn.Linear) :] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Linear]
    assert next(layer.p for layer in layers if type(layer) is nn.Dropout) == 0.2


@pytest.mark.parametrize("size", [25, 26, 64])
def test_other_sizes(size: int) -> None:
    model = LrnEncoder(facts(size=size), features=[3])
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.image_size=24: .*25 pixels"):
        LrnEncoder(facts(size=24))
    for features in ([], [4, 0]):
        with pytest.raises(UserError, match=r"model\.features="):
            LrnEncoder(facts(size=32), features=features)
