"""Mirror images.

Shapes: B images, C channels, H and W pixels.
"""

import torch
from torch import Tensor

from fewshot_runner.data.chance import Chance


class HorizontalFlip:
    """Left and right change places in each image with `probability`."""

    def __init__(self, *, probability: float = 0.5) -> None:
        self.chance = Chance(probability)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.chance.choose(images.flip(3), images, generator)
