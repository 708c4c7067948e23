"""The four-block convolutional network of Matching Networks (Vinyals et al. 2016), the usual backbone at 28 to 84 px.

Each block: 3x3 convolution, batch norm, ReLU, 2x2 max pooling. Options: a width per block, and pooling right after
the convolution, another network of the same size that trains about twice as fast on a CPU.

Shapes: B images, D = widths[-1] * (size // 16)^2 features.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.conv_block import ConvBlock


class Conv4(nn.Module):
    def __init__(self, facts: Facts, *, widths: Sequence[int] = (64, 64, 64, 64), pool_first: bool = False) -> None:
        super().__init__()
        channels, height, width = facts.image_shape
        if not widths or min(widths) < 1:
            raise UserError(f"model.widths={list(widths)}: give the number of filters of each block, 1 or more")
        if min(height, width) < 2 ** len(widths):
            raise UserError(
                f"dataset.image_size={min(height, width)}: {len(widths)} blocks that halve the image "
                f"need {2 ** len(widths)} pixels or more"
            )
        pool = "first" if pool_first else "last"
        blocks = [ConvBlock(*sizes, pool=pool) for sizes in zip([channels, *widths[:-1]], widths, strict=True)]
        self.blocks = nn.Sequential(*blocks)
        self.out_features = widths[-1] * (height >> len(widths)) * (width >> len(widths))

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images).flatten(1)  # (B, D)
