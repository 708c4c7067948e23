"""Crops: from pictures of any aspect ratio to a batch of squares, and from a batch to its middle.

`RandomResizedCrop` is the crop of "Going Deeper with Convolutions" (Szegedy et al. 2015,
https://arxiv.org/abs/1409.4842) as torchvision draws it.

Shapes: B images, C channels, H and W pixels, S a crop's side.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fewshot_runner.data.decode import RESAMPLING, centre
from fewshot_runner.errors import UserError

TRIES = 10  # for a box that lies within its picture


class RandomResizedCrop:
    """A random box of each picture, resized to `size` x `size` with antialiasing.

    The box covers a share of the picture's area, uniform in `scale`, and its width is to its height as a number in
    `ratio`, uniform in its logarithm. Where none of ten such boxes fits, as in a picture much wider than any `ratio`,
    it is the largest in the middle whose shape is allowed.
    """

    def __init__(
        self,
        *,
        size: int,
        scale: tuple[float, float] = (0.8, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        resample: str = "bilinear",
    ) -> None:
        if size < 1:
            raise UserError(f"size={size}: give 1 pixel or more")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"scale={list(scale)}: give two rising shares of the area, above 0 and at most 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"ratio={list(ratio)}: give two rising numbers above 0, width to height")
        if resample not in RESAMPLING:
            raise UserError(f"resample={resample}: choose {' or '.join(RESAMPLING)}")
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.resample = resample

    def __call__(self, pictures: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """B uint8 pictures (C, H, W) to (B, C, S, S) float values in 0..1; `generator` is a CPU generator."""
        if pictures[0].dtype != torch.uint8:
            raise UserError("RandomResizedCrop: takes pictures as they are kept, so it has to be dataset.crop")
        boxes = self.boxes(torch.tensor([picture.shape[1:] for picture in pictures]), generator)
        crops = [
            resized(
                picture[None, :, top : top + height, left : left + width],
                self.size,
                self.resample,
                in_bytes=picture.device.type == "cpu",
            )
            for picture, (top, left, height, width) in zip(pictures, boxes.tolist(), strict=True)
        ]
        return torch.cat(crops).float().div_(255)

    def boxes(self, sizes: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 2) heights and widths to (B, 4) top, left, height and width, one draw an image."""
        shares, logs, down, right = torch.rand(4, len(sizes), TRIES, generator=generator, dtype=torch.float64)
        picture_height, picture_width = sizes.double()[..., None].unbind(1)  # (B, 1) each
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        area = picture_height * picture_width * (self.scale[0] + shares * (self.scale[1] - self.scale[0]))
        ratio = (low + logs * (high - low)).exp()
        height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()  # (B, TRIES)
        fits = (height >= 1) & (width >= 1) & (height <= picture_height) & (width <= picture_width)
        top = (down * (picture_height - height + 1)).floor()  # of all places, the last included, one
        left = (right * (picture_width - width + 1)).floor()
        tried = torch.stack([top, left, height, width], dim=2)  # (B, TRIES, 4)
        first = tried[torch.arange(len(sizes)), fits.int().argmax(dim=1)]  # (B, 4)
        return torch.where(fits.any(dim=1, keepdim=True), first, self._middle(sizes)).long()

    def _middle(self, sizes: Tensor) -> Tensor:
        """(B, 2) to (B, 4): the largest box in the middle whose shape is allowed."""
        height, width = sizes.double().unbind(1)
        box_height = torch.minimum(height, (width / self.ratio[0]).round())
        box_width = torch.minimum(width, (height * self.ratio[1]).round())
        return torch.stack(
            [((height - box_height) / 2).floor(), ((width - box_width) / 2).floor(), box_height, box_width], dim=1
        )


def resized(picture: Tensor, size: int, resample: str, *, in_bytes: bool) -> Tensor:
    """uint8 (1, C, H, W) to uint8 (1, C, size, size), rounded as an image library rounds.

    `in_bytes` is several times as fast as resizing floats, and only the CPU has it.
    """
    if in_bytes:
        return functional.interpolate(picture, (size, size), mode=resample, antialias=True)
    floats = functional.interpolate(picture.float(), (size, size), mode=resample, antialias=True)
    return floats.round_().clamp_(0, 255).byte()


class CentreCrop:
    """The middle `size` x `size` of every image, to cut off what a rotation drew in from beyond the border."""

    def __init__(self, *, size: int) -> None:
        if size < 1:
            raise UserError(f"size={size}: give 1 pixel or more")
        self.size = size

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to (B, C, S, S)."""
        height, width = images.shape[-2:]
        if min(height, width) < self.size:
            raise UserError(f"size={self.size}: the images to be cropped are {height} x {width}; give at most that")
        top, left = centre(height, self.size), centre(width, self.size)
        return images[..., top : top + self.size, left : left + self.size]
