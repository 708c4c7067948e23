"""The branch of a siamese network that recognises individual whales (Martin Piotte 2018).

"Whale recognition model with score 0.78563", https://www.kaggle.com/martinpiotte/whale-recognition-model-with-score-0-78563.
Six blocks at falling resolution, with few parameters: a 9x9 convolution of stride 2; two 3x3 convolutions; and four
times a 1x1 convolution to more channels, followed by four residual sub-blocks 1x1-3x3-1x1. From 384 px the blocks
work at 384, 96, 48, 24, 12 and 6 px. Global max pooling finds a mark wherever it is.

Every convolution has a bias and is followed by ReLU; batch norm stands before convolutions, not after them. In a
sub-block, what is added at the end is its input after batch norm. Where we deviate: odd sizes are padded alike on
both sides, and batch norm has torch's momentum and epsilon, not those of Keras.

Shapes: B images, D = widths[-1] features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts


class Branch(nn.Module):
    """`widths` of block 1 and 2 together and of blocks 3 to 6; `bottlenecks` of the sub-blocks of blocks 3 to 6."""

    def __init__(
        self,
        facts: Facts,
        *,
        widths: Sequence[int] = (64, 128, 256, 384, 512),
        bottlenecks: Sequence[int] = (64, 64, 96, 128),
        depth: int = 4,
    ) -> None:
        super().__init__()
        channels, height, width = facts.image_shape
        if len(widths) != 5 or len(bottlenecks) != 4 or min(*widths, *bottlenecks) < 1 or depth < 0:
            raise UserError(
                f"model.widths={list(widths)} model.bottlenecks={list(bottlenecks)} model.depth={depth}: give five "
                "widths and four bottlenecks, each 1 or more, and a depth of 0 or more"
            )
        if min(height, width) < 64:
            raise UserError(f"dataset.image_size={min(height, width)}: six halvings need 64 pixels or more")
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 9, stride=2, padding=4), nn.ReLU(), nn.MaxPool2d(2)]
        for _ in range(2):
            layers += [nn.BatchNorm2d(widths[0]), nn.Conv2d(widths[0], widths[0], 3, padding=1), nn.ReLU()]
        for inputs, outputs, bottleneck in zip(widths, widths[1:], bottlenecks, strict=False):
            layers += [nn.MaxPool2d(2), nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
            layers += [Residual(outputs, bottleneck) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).amax(dim=(2, 3))  # (B, D)


class Residual(nn.Module):
    """Reduces to `bottleneck` channels, looks at 3x3 pixels, restores the channels, and adds."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.change = nn.Sequential(
            nn.Conv2d(channels, bottleneck, 1), nn.ReLU(), nn.BatchNorm2d(bottleneck),
            nn.Conv2d(bottleneck, bottleneck, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(bottleneck),
            nn.Conv2d(bottleneck, channels, 1),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.norm(maps)
        return torch.relu(maps + self.change(maps))
