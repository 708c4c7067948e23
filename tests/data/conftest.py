"""A toy source of photographs, CSV files, and the published data that several tests read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.source import PARTS, Item, Source, Split
from fewshot_runner.data.sources.omniglot import Omniglot

SHAPES = [(30, 40), (40, 30), (25, 25), (24, 24), (67, 31), (18, 90), (110, 20), (33, 50), (50, 34)]  # width, height


class Photos(Source):
    """Nine pictures of noise with large features, of the shapes above; three classes, one a part."""

    name = "photos"

    def __init__(self, *, mode: str = "RGB", version: int = 1) -> None:
        self.mode = mode
        self.version = version
        self.decoded: list[int] = []  # which images were asked for, in order

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "mode": self.mode, "version": self.version}

    def items(self) -> list[Item]:
        return [Item(f"{number}.jpg", class_name="abc"[number // 3]) for number in range(len(SHAPES))]

    def image(self, index: int) -> Image.Image:
        self.decoded.append(index)
        noise = np.random.default_rng(index).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
        return Image.fromarray(noise).resize(SHAPES[index], Image.Resampling.BICUBIC).convert(self.mode)

    def split(self, name: str) -> Split:
        return Split(name, dict(zip(PARTS, (["a"], ["b"], ["c"]), strict=True)))


@pytest.fixture(scope="session")
def photos() -> type[Photos]:
    """The class of the toy source; a test makes as many as it needs."""
    return Photos


@pytest.fixture(scope="module")
def real(omniglot_data) -> Omniglot:
    return Omniglot(root=str(omniglot_data), download=False)


@pytest.fixture(scope="module")
def vinyals_lists(omniglot_data) -> dict[str, list[str]]:
    folder = omniglot_data / "splits" / "omniglot" / "vinyals"
    if not folder.is_dir():
        pytest.skip(f"needs the published lists, and {folder} is absent; set FSL_DATA")
    return {part: (folder / f"{part}.txt").read_text().splitlines() for part in ("train", "val", "test")}


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file, and an image for each of the paths a.png to d.png whose grey value is its place."""
    for value, name in enumerate("abcd"):
        Image.new("L", (4, 4), value).save(tmp_path / f"{name}.png")

    def write(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def make(tmp_path, squares):
    """A data set of squares at their own size, so that pixels need no resizing."""

    def make(source=None, **options) -> Dataset:
        settings = {"split": "classes", "cache": str(tmp_path), "image_size": 20, "channels": 3, **options}
        return Dataset(source or squares(), **settings)

    return make
