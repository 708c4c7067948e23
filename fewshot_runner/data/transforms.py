"""Augmentations of whole batches with one random draw per image, and the last step before the network.

Shapes: B images, C channels, H and W pixels. Values are in 0..1 until `Standardise`.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fewshot_runner.data.chance import Chance
from fewshot_runner.data.transfer import constants, to_device
from fewshot_runner.errors import UserError

PAPER = {"white": 1.0, "black": 0.0}
BEYOND = {"edge": "border", "mirror": "reflection"}  # torch's names for what needs no paper

Transform = Callable[[Tensor, torch.Generator], Tensor]


class Warp:
    """Random affine map and elastic distortion in one resampling, as Koch et al. (2015) and Simard et al. (2003).

    Per image, uniformly: rotation within +-`rotation` degrees; shear within +-`shear` along each axis; each axis
    scaled by 1 +-`scale`; shift within +-`shift` of the image size; a smooth displacement field whose control
    points, `elastic_grid` a side, move by a normal deviate of `elastic` image sizes. Each of these five is applied
    to each image with `probability`, as in Koch et al., who drew for every number of the map. What comes in from
    beyond the border is `background`: "white" or "black" paper; or, for photographs, "edge", the nearest pixel, or
    "mirror", the image mirrored at its border.

    The map goes from a pixel of the result to the place it is taken from, as `affine_grid` wants it. So a `scale` of
    0.2 makes drawings 1 / 1.2 to 1 / 0.8 times as large, and a shift is scaled and sheared with them.
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        shear: float = 0.0,
        scale: float = 0.0,
        shift: float = 0.0,
        elastic: float = 0.0,
        elastic_grid: int = 5,
        background: str = "white",
        probability: float = 1.0,
    ) -> None:
        if background not in (*PAPER, *BEYOND):
            raise UserError(f"background={background}: choose white, black, edge or mirror")
        if not 0 <= scale < 1:
            raise UserError(f"scale={scale}: give a share of 0 or more and below 1")
        if elastic_grid < 2:
            raise UserError(f"elastic_grid={elastic_grid}: give 2 or more control points a side")
        self.rotation = math.radians(rotation)
        self.shear = shear
        self.scale = scale
        self.shift = shift
        self.elastic = elastic
        self.elastic_grid = elastic_grid
        self.background = background
        self.chance = Chance(probability)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to the same shape; `generator` is a CPU generator whatever the images' device."""
        drawn = to_device(self._drawn(len(images), generator, images.dtype), images.device)
        grid = self._grid(drawn, images.shape[-2:])  # (B, H, W, 2), in -1..1
        if self.background in BEYOND:
            return functional.grid_sample(images, grid, padding_mode=BEYOND[self.background], align_corners=False)
        paper = PAPER[self.background]
        return functional.grid_sample(images - paper, grid, align_corners=False).add_(paper)

    def _grid(self, drawn: Tensor, size: Sequence[int]) -> Tensor:
        """(B, H, W, 2) where each pixel is taken from, as one product of matrices: all is linear in what is drawn.

        In memory all x lie before all y, which costs `grid_sample` nothing.
        """
        basis = coordinates(*size, drawn.dtype, drawn.device)
        if self.elastic:
            basis = torch.cat([basis, bends(self.elastic_grid, *size, drawn.dtype, drawn.device)])
        places = drawn.flatten(0, 1) @ basis  # (2 B, 3 + points) @ (3 + points, H W)
        return places.view(len(drawn), 2, *size).permute(0, 2, 3, 1)

    def _drawn(self, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """(count, 2, 3 + points): an affine map, and how far each control point moves along x and y."""
        affine = self._affine(count, generator, dtype)
        if not self.elastic:
            return affine
        points = torch.randn(count, 2, self.elastic_grid**2, generator=generator, dtype=dtype)
        bent = self.chance.draw(count, generator).view(-1, 1, 1)
        return torch.cat([affine, 2 * self.elastic * points * bent], dim=2)

    def _affine(self, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """(count, 2, 3) maps from output to input coordinates."""

        def uniform(limit: float) -> Tensor:
            return (2 * torch.rand(count, generator=generator, dtype=dtype) - 1) * limit

        def along_x_and_y(limit: float) -> Tensor:
            return torch.stack([uniform(limit), uniform(limit)])  # (2, count)

        angle, shears = uniform(self.rotation), along_x_and_y(self.shear)
        scales, shifts = along_x_and_y(self.scale), along_x_and_y(2 * self.shift)
        turned, sheared, scaled, shifted = (self.chance.draw(count, generator) for _ in range(4))
        angle = angle * turned
        cos, sin = angle.cos(), angle.sin()
        shear_x, shear_y = shears * sheared
        scale_x, scale_y = 1 + scales * scaled
        shift_x, shift_y = shifts * shifted
        rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
        ones = torch.ones_like(shear_x)
        shear = torch.stack([ones, shear_x, shear_y, ones], dim=1).view(-1, 2, 2)
        linear = rotation @ shear * torch.stack([scale_x, scale_y], dim=1)[:, None]  # (count, 2, 2)
        return torch.cat([linear, torch.stack([shift_x, shift_y], dim=1)[..., None]], dim=2)


@functools.cache
def coordinates(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(3, height * width): x and y of each pixel's middle, in -1..1 from border to border, and 1."""
    x, y = (torch.arange(1 - size, size, 2, dtype=dtype, device=device) / size for size in (width, height))
    x, y = x.repeat(height), y.repeat_interleave(width)
    return torch.stack([x, y, torch.ones_like(x)])


@functools.cache
def bends(points: int, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(points * points, height * width): how far each pixel moves with each of the control points."""
    return torch.kron(*(bicubic_weights(points, size, dtype, device).T.contiguous() for size in (height, width)))


def bicubic_weights(points: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(size, points): each of `size` pixels as a weighted sum of control points that span them from end to end.

    Interpolation is linear in the points.
    """
    identity = torch.eye(points, dtype=dtype)[None, None]
    return functional.interpolate(identity, (size, points), mode="bicubic", align_corners=True)[0, 0].to(device)


class Chain:
    """Several transforms as one, from first to last; each draws where the one before it stopped."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to the shape that the last of them makes."""
        for transform in self.transforms:
            images = transform(images, generator)
        return images


class Standardise:
    """The last step before the network: dark becomes light with `invert`, drawings are moved with `centre` (see
    `centred`), then (value - mean) / std per channel.
    """

    def __init__(
        self,
        *,
        invert: bool = False,
        centre: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        if std is not None and min(std) <= 0:
            raise UserError(f"std={std}: every channel's standard deviation must be above 0")
        self.invert = invert
        self.centre = centre
        self.mean = None if mean is None else tuple(mean)
        self.std = None if std is None else tuple(std)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape and type, also within mixed precision."""
        if self.invert:
            images = 1 - images
        if self.centre:
            images = centred(images)
        if self.mean is not None:
            images = images - constants(self.mean, images.device)
        if self.std is not None:
            images = images / constants(self.std, images.device)
        return images


def centred(images: Tensor) -> Tensor:
    """(B, C, H, W) light drawings on black, each moved so that the centre of mass of its light is the image's centre.

    People set the same character down in different places, and a network that compares embeddings place by place
    takes that for a difference. MNIST was made so (LeCun, Bottou, Bengio and Haffner 1998). What comes in from beyond
    the border is black; an image without light stays.
    """
    height, width = images.shape[-2:]
    light = images.sum(dim=1)  # (B, H, W)
    total = light.sum(dim=(1, 2)).clamp(min=torch.finfo(light.dtype).tiny)
    places = [torch.arange(1 - size, size, 2, device=images.device) / size for size in (width, height)]  # in -1..1
    x, y = ((light.sum(dim=1 + k) * at).sum(dim=1) / total for k, at in enumerate(places))  # (B,) each
    x, y = places[0] + x[:, None], places[1] + y[:, None]  # (B, W), (B, H): where each pixel comes from
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    return functional.grid_sample(images, grid, align_corners=False)
