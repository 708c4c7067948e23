"""Which images of a batch a random transform changes.

Shapes: B images, C channels, H and W pixels.
"""

import torch
from torch import Tensor

from fewshot_runner.data.transfer import to_device
from fewshot_runner.errors import UserError


class Chance:
    """Chooses each image independently with `probability`; of 1, nothing is drawn from the (CPU) generator."""

    def __init__(self, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise UserError(f"probability={probability}: give a number from 0 to 1")
        self.probability = probability

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) truth values on the CPU."""
        if self.probability == 1:
            return torch.ones(count, dtype=torch.bool)
        return torch.rand(count, generator=generator) < self.probability

    def choose(self, changed: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) twice to the same shape: of each pair of images the changed one, or the one it was made of."""
        drawn = self.draw(len(images), generator)
        return torch.where(to_device(drawn, images.device).view(-1, 1, 1, 1), changed, images)
