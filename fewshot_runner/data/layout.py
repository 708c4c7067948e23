"""How the pictures of a store lie in its file of pixels: all in one square shape, or each at its own aspect ratio.

A layout's `options` are part of the store's cache key.

Shapes: I images, C channels, H and W pixels.
"""

import mmap
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fewshot_runner.data.decode import LONGEST, fit, readable, shorten
from fewshot_runner.data.source import Source

Tell = Callable[[int], None]  # is told the number of images done
SURE_TO_FIT = 1 << 30  # bytes that memory holds, so that reading ahead is reading once
FEW_PAGES = 4 * mmap.PAGESIZE  # bytes of a picture that is fetched as fast page by page as with those around it


@dataclass(frozen=True)
class Square:
    """One array (I, C, H, W), H = W = `image_size`: the centre of each picture."""

    image_size: int
    channels: int
    resample: str = "bilinear"
    file: ClassVar[str] = "pixels.npy"

    @property
    def label(self) -> str:
        return f"{self.image_size}px"

    def options(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if (key, value) != ("resample", "bilinear")}

    def write(self, path: Path, source: Source, count: int, tell: Tell) -> dict[str, np.ndarray]:
        """Decodes `count` pictures; returns what belongs into the index."""
        size, channels = self.image_size, self.channels
        shape = (count, channels, size, size)
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(path)

        # one after the other: on small images, threads that hand the interpreter to each other take twice as long
        for index, image in enumerate(readable(source.image, range(count))):
            pixels[index] = fit(image, size, channels, resample=self.resample)
            tell(index + 1)
        pixels.flush()
        return {}

    def read(self, path: Path, index: dict[str, np.ndarray]) -> np.ndarray:
        # "c" keeps the file untouched and gives torch the writable array that it insists on
        return np.load(path, mmap_mode="c", allow_pickle=False)


@dataclass(frozen=True)
class Ragged:
    """Photographs at their own aspect ratio, one behind the other: image i is (H, W, C) from byte `offsets[i]` on.

    The shorter of H and W is `shorter_side`, the longer at most `LONGEST` times that; `sizes` (I, 2) holds both.
    Pixels keep their channels together because resizing is fastest on that order.
    """

    shorter_side: int
    channels: int
    resample: str = "bilinear"
    file: ClassVar[str] = "pixels.bin"

    @property
    def label(self) -> str:
        return f"short{self.shorter_side}px"

    def options(self) -> dict[str, Any]:
        return {**asdict(self), "longest": LONGEST}

    def write(self, path: Path, source: Source, count: int, tell: Tell) -> dict[str, np.ndarray]:
        """Decodes `count` pictures; returns what belongs into the index."""
        sizes = np.empty((count, 2), dtype=np.int64)
        with open(path, "xb") as file:  # the size of each comes with its pixels, so no room can be claimed ahead
            for index, image in enumerate(readable(source.image, range(count))):
                short = shorten(image, self.shorter_side, self.channels, resample=self.resample)
                sizes[index] = short.height, short.width
                file.write(short.tobytes())  # rows of pixels, each with its channels
                tell(index + 1)
        offsets = np.concatenate([[0], np.cumsum(sizes.prod(axis=1) * self.channels)])
        return {"sizes": sizes, "offsets": offsets}

    def read(self, path: Path, index: dict[str, np.ndarray]) -> np.ndarray:
        return np.memmap(path, mode="c", dtype=np.uint8, shape=(int(index["offsets"][-1]),))


def expect_scattered(pixels: np.memmap) -> None:
    """Of a large file of small pictures (I, C, H, W) the system reads no more than is asked for from here on.

    It reads a megabyte around each otherwise, and the next picture of a batch is drawn from elsewhere.
    """
    if pixels.nbytes > SURE_TO_FIT and pixels[:1].nbytes <= FEW_PAGES and hasattr(mmap, "MADV_RANDOM"):
        pixels.base.madvise(mmap.MADV_RANDOM)


def _reserve(path: Path) -> None:
    """Claims the disk space of a sparse file: a full disk is an `OSError` here, a bus error in a memory map."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
