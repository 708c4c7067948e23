"""Random changes of colour with one draw per image, as torchvision's functions of the same names define them.

Shapes: B images, C channels (3 red, green, blue, or 1 grey), H and W pixels. Values stay in 0..1.
"""

import torch
from torch import Tensor

from fewshot_runner.data.chance import Chance
from fewshot_runner.data.transfer import constants, to_device
from fewshot_runner.errors import UserError

LUMA = (0.2989, 0.587, 0.114)  # what red, green and blue add to a grey, by ITU-R BT.601


class ColourJitter:
    """Brightness, contrast, saturation and hue of each image changed by random amounts, in this order.

    The first three are multiplied by a factor uniform in 1 +-`brightness` and so on, but not below 0; `hue` turns
    the circle of colours by a share of it, uniform within +-`hue`. An image is changed at all with `probability`.
    torchvision draws the order anew for every image; here it is fixed, so that a batch is one sequence of operations.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        for key, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise UserError(f"{key}={value}: give 0 or more")
        if not 0 <= hue <= 0.5:
            raise UserError(f"hue={hue}: give a share of the circle of colours from 0 to 0.5")
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.chance = Chance(probability)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to the same shape; `generator` is a CPU generator whatever the images' device."""
        if (self.saturation or self.hue) and images.shape[1] != 3:
            raise UserError("saturation and hue: grey images have none; set both to 0, or dataset.channels=3")
        changed = images
        if self.brightness:
            changed = brightened(changed, self._factor(self.brightness, images, generator))
        if self.contrast:
            changed = contrasted(changed, self._factor(self.contrast, images, generator))
        if self.saturation:
            changed = saturated(changed, self._factor(self.saturation, images, generator))
        if self.hue:
            changed = hue_turned(changed, self._uniform(-self.hue, self.hue, images, generator))
        return self.chance.choose(changed, images, generator)

    def _factor(self, spread: float, images: Tensor, generator: torch.Generator) -> Tensor:
        return self._uniform(max(0.0, 1 - spread), 1 + spread, images, generator)

    @staticmethod
    def _uniform(low: float, high: float, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 1, 1, 1)"""
        drawn = low + (high - low) * torch.rand(len(images), generator=generator)
        return to_device(drawn, images.device).view(-1, 1, 1, 1)


def grey(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 1, H, W)"""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def brightened(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """Farther from the mean grey of the image, or nearer to it."""
    return torch.lerp(grey(images).mean(dim=(1, 2, 3), keepdim=True), images, factor).clamp_(0, 1)


def saturated(images: Tensor, factor: Tensor) -> Tensor:
    """Farther from the grey of each pixel, or nearer to it."""
    return torch.lerp(grey(images), images, factor).clamp_(0, 1)


def hue_turned(images: Tensor, turn: Tensor) -> Tensor:
    """(B, 3, H, W): `turn` is a share of the circle of colours, from red over green and blue; as in HSV.

    The brightest channel and the distance to the darkest stay what they are: a hue says where between them the
    channels lie. With the hue as a position on a circle of length 6, a channel is at its darkest where that is two
    or less from the opposite of the channel's own place (red 0, green 2, blue 4).
    """
    red, green, blue = images.unbind(1)  # (B, H, W)
    value = images.amax(dim=1)
    span = value - images.amin(dim=1)
    scale = torch.where(span > 0, span, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    hue = (hue + 6 * turn[:, 0])[:, None]  # (B, 1, H, W)
    place = constants((0.0, 2.0, 4.0), images.device)
    distance = ((hue - place + 3).remainder(6) - 3).abs_()  # (B, 3, H, W), 0..3 along the circle
    share = (2 - distance).clamp_(0, 1)
    return (value - span)[:, None] + span[:, None] * share
