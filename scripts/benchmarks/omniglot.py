"""Omniglot's pictures as the other contestants take them: PNG files in folders, or one tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor

from fewshot_runner.data.dataset import Dataset


@contextmanager
def png_folder(dataset: Dataset, part: str = "train") -> Iterator[Path]:
    """A folder that holds the pictures of `part` for a while, a sub-folder a class, light on dark where fsl inverts."""
    with TemporaryDirectory(prefix="fsl-bench-") as folder:
        table = dataset.table(part)
        pictures = dataset.viewer(part, torch.device("cpu")).images.pictures(torch.from_numpy(table.members))
        pictures = 255 - pictures if dataset.standardise.invert else pictures
        for label in range(table.n_classes):
            of_class = Path(folder) / f"{label:04d}"
            of_class.mkdir()
            for position in range(table.offsets[label], table.offsets[label + 1]):
                Image.fromarray(pictures[position, 0].numpy()).save(of_class / f"{position:06d}.png")
        yield Path(folder)


def as_tensor(dataset: Dataset, part: str = "train") -> tuple[Tensor, Tensor]:
    """All pictures of `part` (I, 1, H, W) as the network sees them, and where each class's begin (C + 1,)."""
    table = dataset.table(part)
    images = dataset.viewer(part, torch.device("cpu"))(torch.from_numpy(table.members))
    return images.contiguous(), torch.from_numpy(table.offsets)
