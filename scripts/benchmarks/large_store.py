"""Millions of small pictures of noise in fsl's own store, written without decoding any."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot_runner.cli.compose import compose
from fewshot_runner.data.layout import Square, Tell
from fewshot_runner.data.source import Item, Source, Split
from fewshot_runner.data.store import build, place_of

SIZE = 28
IMAGES_A_CLASS = 20
AT_ONCE = 100_000
STRIDE = 7919  # between the beginnings of pictures on the tape; a prime, so that a million of them differ


class Noise(Source):
    """`count` pictures, twenty of each class; all but the last twenty classes are for training.

    Each is a stretch of one tape of noise, so that millions are written as fast as bytes are copied.
    """

    name = "noise"

    def __init__(self, *, count: int) -> None:
        self.count = count
        tape = np.random.default_rng(0).integers(0, 256, size=1 << 20, dtype=np.uint8)
        self.stretches = np.lib.stride_tricks.sliding_window_view(tape, SIZE**2)

    def pixels(self, start: int, stop: int) -> np.ndarray:
        """Those of pictures `start` to `stop`, (I, SIZE * SIZE)."""
        return self.stretches[np.arange(start, stop) * STRIDE % len(self.stretches)]

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "count": self.count}

    def items(self) -> Sequence[Item]:
        return Listed(self.count)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels(index, index + 1).reshape(SIZE, SIZE))

    def split(self, name: str) -> Split:
        names = [class_name(number) for number in range(self.count // IMAGES_A_CLASS)]
        return Split(name, {"train": names[:-20], "val": names[-20:-10], "test": names[-10:]})


class Listed(Sequence):
    """The items of `Noise`, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        return Item(str(index), class_name(index // IMAGES_A_CLASS))

    def __iter__(self) -> Iterator[Item]:
        return map(self.__getitem__, range(self.count))


class InBulk(Square):
    """The same layout, its pixels written by the hundred thousand."""

    def write(self, path: Path, source: Noise, count: int, tell: Tell) -> dict[str, np.ndarray]:
        shape = (count, self.channels, self.image_size, self.image_size)
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for start in range(0, count, AT_ONCE):
                file.write(source.pixels(start, min(start + AT_ONCE, count)).tobytes())
        return {}


def class_name(number: int) -> str:
    return f"{number:06d}"


def written(count: int, cache: Path) -> Path:
    """The folder of the store of `count` pictures below `cache`."""
    source, layout = Noise(count=count), InBulk(SIZE, channels=1)
    path, options = place_of(source, layout, cache)
    build(source, path, layout, options)
    return path


def config(count: int, cache: str, *, threads: int) -> dict[str, Any]:
    """The config of a run on it."""
    words = ["method=prototypical_episodic", "model=conv4", "dataset.augment=null", "dataset.symmetries=none",
             "dataset.tests=null", "hardware=cpu", f"hardware.threads={threads}", f"dataset.cache={cache}",
             "trusted_packages=[benchmarks]"]  # fmt: skip
    composed = compose(words)
    composed["dataset"]["source"] = {"_target_": f"{__name__}.{Noise.__name__}", "count": count}
    return composed
