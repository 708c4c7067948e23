"""From the indices that a sampler drew to the images that a method sees."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.images import Images
from fewshot_runner.data.ragged import RaggedImages
from fewshot_runner.data.samplers import Sampler
from fewshot_runner.data.transfer import to_device
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.randomness import torch_generator

Augmentation = Callable[[Tensor, torch.Generator], Tensor]  # (B, C, H, W) to images of that or another size
Crop = Callable[[Sequence[Tensor], torch.Generator], Tensor]  # B uint8 pictures (C, H, W) to (B, C, S, S) in 0..1


class Viewer:
    """Indices (B,) to images (B, C, H, W) on the device, as the network wants them.

    Evaluation sees the images as they are kept, or the middle of a photograph; training with `crop` another part.
    """

    def __init__(
        self,
        images: Images | RaggedImages,
        standardise: Standardise,
        *,
        symmetries: bool,
        device: torch.device,
        crop: Crop | None = None,
    ) -> None:
        self.images = images
        self.standardise = standardise
        self.symmetries = symmetries
        self.device = device
        self.crop = crop
        self.pictures = self  # what people are shown; another viewer where this one does not show images

    def __call__(self, index: Tensor) -> Tensor:
        """Without augmentation: what evaluation uses."""
        return self.standardise(self._gather(index))

    def augmented(self, index: Tensor, augment: Augmentation | None, generator: torch.Generator) -> Tensor:
        """What training sees: `generator` draws the crops first, then what `augment` draws."""
        images = self._gather(index) if self.crop is None else self._cropped(index, self.crop, generator)
        return self.standardise(images if augment is None else augment(images, generator))

    def _gather(self, index: Tensor) -> Tensor:
        return self.images.gather(index, symmetries=self.symmetries, device=self.device)

    def _cropped(self, index: Tensor, crop: Crop, generator: torch.Generator) -> Tensor:
        pictures = self.images.pictures(index, symmetries=self.symmetries)
        return to_device(crop(pictures, generator), self.device)


class TrainingLoader:
    """Training item k, ready for the method: a pure function of k, so there is no position to save but k."""

    def __init__(self, viewer: Viewer, sampler: Sampler, augment: Augmentation | None, *, seed: int) -> None:
        self.viewer = viewer
        self.sampler = sampler
        self.augment = augment
        self.seed = seed

    def __getitem__(self, k: int) -> Episode | Batch:
        generator = torch_generator(self.seed, "augment", k)
        item = self.sampler[k].map(lambda index: self.viewer.augmented(index, self.augment, generator))
        return item.to(self.viewer.device)
