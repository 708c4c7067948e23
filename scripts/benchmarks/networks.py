"""Networks of plain layers, as a user would write them, with the weights of fsl's own."""

from collections.abc import Sequence

from torch import nn


def conv4(width: int = 64, channels: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, 2x2 max pooling, four times."""
    layers: list[nn.Module] = []
    for inputs in (channels, width, width, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten())


def conv4_strided(widths: Sequence[int] = (64, 64, 64, 64), channels: int = 1) -> nn.Sequential:
    """3x3 convolution with stride 2, batch norm, ReLU, four times."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip([channels, *widths[:-1]], widths, strict=True):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def with_weights_of(plain: nn.Module, backbone: nn.Module) -> nn.Module:
    """`plain` with a copy of the weights and buffers of `backbone`, which come in the same order."""
    plain.load_state_dict(dict(zip(plain.state_dict(), backbone.state_dict().values(), strict=True)))
    return plain.train(backbone.training)
