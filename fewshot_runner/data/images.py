"""The pixels of a store as a tensor that is addressed by index, under any of the square's symmetries.

Shapes: I images, B indices, C channels, H and W pixels.
"""

import torch
from torch import Tensor

from fewshot_runner.data.transfer import to_device

SYMMETRIES = {
    "none": ("rot000",),
    "rotations": ("rot000", "rot090", "rot180", "rot270"),
    "dihedral": ("rot000", "rot090", "rot180", "rot270", "flip000", "flip090", "flip180", "flip270"),
}


def symmetry_permutations(size: int) -> Tensor:
    """(8, size * size): which pixel comes where under each of `SYMMETRIES["dihedral"]`.

    Rotations are counter-clockwise; a flip mirrors left and right first.
    """
    pixel = torch.arange(size * size).view(size, size)
    turned = [pixel.rot90(k) for k in range(4)] + [pixel.flip(1).rot90(k) for k in range(4)]
    return torch.stack(turned).flatten(1)


class Images:
    """uint8 pixels (I, C, H, W); index `i + v * I` is image i under symmetry number v."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.permutations: Tensor | None = None
        if pixels.shape[-1] == pixels.shape[-2]:
            self.permutations = symmetry_permutations(pixels.shape[-1]).to(pixels.device)

    def __len__(self) -> int:
        return len(self.pixels)

    def pictures(self, index: Tensor, *, symmetries: bool = False) -> Tensor:
        """(B,) indices to uint8 (B, C, H, W) on the pixels' device.

        `symmetries` says whether indices beyond the number of images may occur.
        """
        index = to_device(index, self.pixels.device)
        if not symmetries:
            return self.pixels.index_select(0, index)
        assert self.permutations is not None, "symmetries need square images"
        chosen = self.pixels.index_select(0, index % len(self.pixels))  # (B, C, H, W); faster than pixels[index]
        where = self.permutations.index_select(0, index // len(self.pixels))  # (B, H * W)
        flat = chosen.flatten(2)  # (B, C, H * W)
        return flat.gather(2, where[:, None].expand_as(flat)).view_as(chosen)

    def gather(self, index: Tensor, *, symmetries: bool = False, device: torch.device | None = None) -> Tensor:
        """(B,) indices to (B, C, H, W) float values in 0..1 on `device`, by default the pixels' own; bytes travel."""
        return to_device(self.pictures(index, symmetries=symmetries), device).float().div_(255)
