"""The small network of a well-known siamese tutorial on Omniglot at 105 px: three pooled 3x3 blocks and a fourth.

Convolutions are valid, without batch norm: 1-4-16-32-32 channels, 2,592 features at 105 px. The tutorial pools after
ReLU; before it, values and gradients are the same bits, and ReLU has a quarter of the work. The first convolution has
so few filters that it and its pooling have a fast path of their own; see conv_block.py.
"""

from torch import Tensor, nn

from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.models.conv_block import pooled


class SiameseCnn(nn.Module):
    fuse_blocks: bool = True  # set by `Hardware`

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        channels, height, width = facts.image_shape
        for _ in range(3):
            height, width = (height - 2) // 2, (width - 2) // 2
        if min(height, width) < 3:
            raise UserError(f"dataset.image_size={min(facts.image_shape[1:])}: this network needs 38 pixels or more")
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True),
            nn.Conv2d(4, 16, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.out_features = 32 * (height - 2) * (width - 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = pooled(self.layers[0], self.layers[1], images, fuse=self.fuse_blocks)
        return self.layers[2:](maps).flatten(1)  # (B, D)
