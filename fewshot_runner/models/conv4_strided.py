"""The Omniglot network of Reptile (Nichol, Achiam and Schulman 2018, https://arxiv.org/abs/1803.02999).

Each block: 3x3 convolution with stride 2, batch norm, ReLU. A side of odd length is halved upwards, as with the
"same" padding of the original: 28, 14, 7, 4, 2. Where we deviate: at even sides that padding lies below and to the
right alone, ours on all sides; the convolutions have no bias, which batch norm would take away again.

Shapes: B images, D = widths[-1] * ceil(size / 16)^2 features.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.conv_block import ConvBlock


class Conv4Strided(nn.Module):
    """`widths`: the filters of each block; their number is the number of blocks."""

    def __init__(self, facts: Facts, *, widths: Sequence[int] = (64, 64, 64, 64)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise UserError(f"model.widths={list(widths)}: give the number of filters of each block, 1 or more")
        channels, height, width = facts.image_shape
        blocks = []
        for inputs, outputs in zip([channels, *widths[:-1]], widths, strict=True):
            blocks.append(ConvBlock(inputs, outputs, pool="none", stride=2))
            height, width = -(-height // 2), -(-width // 2)
        self.blocks = nn.Sequential(*blocks)
        self.out_features = widths[-1] * height * width

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)  # (B, D)
