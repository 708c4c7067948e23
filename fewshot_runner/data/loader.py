"""From the indices that a sampler drew to the images that a method sees."""

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.images import Images
from fewshot_runner.data.samplers import Sampler
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.randomness import torch_generator

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


class Viewer:
    """Indices (B,) to images (B, C, H, W) on the device, as the network wants them."""

    def __init__(self, images: Images, standardise: Standardise, *, symmetries: bool, device: torch.device) -> None:
        self.images = images
        self.standardise = standardise
        self.symmetries = symmetries
        self.device = device

    def __call__(self, index: Tensor) -> Tensor:
        """Without augmentation: what evaluation uses."""
        return self.standardise(self._gather(index))

    def augmented(self, index: Tensor, augment: Augmentation, generator: torch.Generator) -> Tensor:
        return self.standardise(augment(self._gather(index), generator))

    def _gather(self, index: Tensor) -> Tensor:
        return self.images.gather(index, symmetries=self.symmetries).to(self.device, non_blocking=True)


class TrainingLoader:
    """Training item k, ready for the method: a pure function of k, so there is no position to save but k."""

    def __init__(self, viewer: Viewer, sampler: Sampler, augment: Augmentation | None, *, seed: int) -> None:
        self.viewer = viewer
        self.sampler = sampler
        self.augment = augment
        self.seed = seed

    def __getitem__(self, k: int) -> Episode | Batch:
        item = self.sampler[k]
        if self.augment is None:
            return item.map(self.viewer).to(self.viewer.device)
        generator = torch_generator(self.seed, "augment", k)
        augment = self.augment
        return item.map(lambda index: self.viewer.augmented(index, augment, generator)).to(self.viewer.device)
