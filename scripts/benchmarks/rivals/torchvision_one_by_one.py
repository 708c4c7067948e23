"""torchvision's v2 transforms, image by image: on a whole batch they would give every image the same draw."""

import math

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

SMOOTHNESS = 4.0  # pixels: half of the distance between the control points of fsl's field, 5 a side at 32 pixels
BILINEAR = InterpolationMode.BILINEAR


def affine_and_elastic(
    *, size: int, rotation: float, shear: float, scale: float, shift: float, elastic: float
) -> v2.Compose:
    """As fsl's `Warp` with these settings."""
    slant = math.degrees(math.atan(shear))
    return v2.Compose(
        [
            v2.RandomAffine(
                degrees=rotation, translate=(shift, shift), scale=(1 - scale, 1 + scale),
                shear=(-slant, slant, -slant, slant), interpolation=BILINEAR, fill=1.0,
            ),
            v2.ElasticTransform(alpha=strength(elastic, size), sigma=SMOOTHNESS, interpolation=BILINEAR, fill=1.0),
        ]
    )  # fmt: skip


def strength(elastic: float, size: int) -> float:
    """The alpha whose displacements have a standard deviation of `elastic` image sizes.

    torchvision blurs uniform numbers of -1..1, whose deviation is 1 / sqrt(3), by a Gaussian of s pixels, which divides
    it by 2 sqrt(pi) s, and multiplies by alpha / size in units of half an image.
    """
    blurred = 1 / math.sqrt(3) / (2 * math.sqrt(math.pi) * SMOOTHNESS)
    return 2 * elastic * size / blurred


def one_by_one(transform: v2.Compose, images: Tensor) -> Tensor:
    return torch.stack([transform(image) for image in images])
