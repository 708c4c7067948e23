"""The photographs of a ragged store, addressed by index, each at its own aspect ratio.

Shapes: I images, B indices, C channels, H and W pixels, S a view's side.
"""

import numpy as np
import torch
from torch import Tensor

from fewshot_runner.data.decode import centre
from fewshot_runner.data.transfer import to_device


class RaggedImages:
    """Flat uint8 pixels: image i is (H, W, C) from `offsets[i]` on, `sizes[i]` its H and W.

    `view_size` is the side of the square that evaluation cuts out of the middle; no side of an image is shorter.
    """

    def __init__(
        self, pixels: Tensor, *, offsets: np.ndarray, sizes: np.ndarray, channels: int, view_size: int
    ) -> None:
        assert sizes.min() >= view_size, "a view larger than its image"
        self.pixels = pixels
        self.offsets = offsets.tolist()
        self.sizes = sizes.tolist()
        self.channels = channels
        self.view_size = view_size

    def __len__(self) -> int:
        return len(self.sizes)

    def pictures(self, index: Tensor, *, symmetries: bool = False) -> list[Tensor]:
        """(B,) indices to B views (C, H, W) of the stored bytes, for a crop to choose from; nothing is copied."""
        assert not symmetries, "symmetries need square images"
        chosen = []
        for i in index.tolist():
            height, width = self.sizes[i]
            flat = self.pixels[self.offsets[i] : self.offsets[i + 1]]
            chosen.append(flat.view(height, width, self.channels).permute(2, 0, 1))
        return chosen

    def gather(self, index: Tensor, *, symmetries: bool = False, device: torch.device | None = None) -> Tensor:
        """(B,) indices to (B, C, S, S) float values in 0..1: the middle of each image, on `device` or the pixels'."""
        side = self.view_size
        views = torch.empty(
            len(index), self.channels, side, side, dtype=torch.uint8, device=self.pixels.device
        )  # fmt: skip
        for view, picture in zip(views, self.pictures(index, symmetries=symmetries), strict=True):
            top, left = centre(picture.shape[1], side), centre(picture.shape[2], side)
            view.copy_(picture[:, top : top + side, left : left + side])
        return to_device(views, device).float().div_(255)
