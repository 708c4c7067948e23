"""The image itself as its embedding: the floor that every learned embedding has to rise above."""

from torch import Tensor, nn

from fewshot_runner.facts import Facts


class Pixels(nn.Module):
    """(B, C, H, W) to (B, C * H * W)."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        channels, height, width = facts.image_shape
        self.out_features = channels * height * width

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)
