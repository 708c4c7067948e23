"""A data set as a run uses it: a source, its store at the run's resolution, and a named split of its classes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.images import SYMMETRIES, Images
from fewshot_runner.data.loader import Augmentation, Viewer
from fewshot_runner.data.source import PARTS, FixedRuns, Source, Split
from fewshot_runner.data.store import Progress, open_store
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.errors import UserError


class Dataset:
    """`table(part)` says what may be drawn, `viewer(part)` turns indices into images.

    `symmetries` multiplies the training classes: "none", "rotations" (times 4) or "dihedral" (times 8, flips as
    well). Validation and test have the plain classes, unless the split itself counts rotations as classes.
    `tests` names further test figures that a run on this data set reports; `augment` is applied in training alone.
    `keep` puts the pixels where they are to stay, on a GPU say.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str,
        cache: str,
        image_size: int,
        channels: int = 1,
        invert: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        symmetries: str = "none",
        augment: Augmentation | None = None,
        tests: Mapping[str, Mapping[str, Any] | None] | None = None,
        progress: Progress | None = None,
        keep: Callable[[Tensor], Tensor] = lambda pixels: pixels,
    ) -> None:
        if symmetries not in SYMMETRIES:
            raise UserError(f"dataset.symmetries={symmetries}: choose one of {', '.join(SYMMETRIES)}")
        if channels not in (1, 3):
            raise UserError(f"dataset.channels={channels}: choose 1 (grey) or 3 (colour)")
        if image_size < 8:
            raise UserError(f"dataset.image_size={image_size}: give 8 pixels or more")
        for key, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise UserError(f"dataset.{key}={values}: give one value a channel; dataset.channels={channels}")
        self.source = source
        self.name = source.name
        self.split: Split = source.split(split)
        self.cache = Path(cache).expanduser()
        self.store = open_store(source, image_size=image_size, channels=channels, cache=self.cache, progress=progress)
        self.image_shape = (channels, image_size, image_size)
        self.pixels = keep(torch.from_numpy(self.store.pixels))
        self.standardise = Standardise(invert=invert, mean=mean, std=std)
        self.symmetries = symmetries
        self.augment = augment
        self.tests = {name: dict(test) for name, test in (tests or {}).items() if test is not None}

    def symmetries_of(self, part: str) -> str:
        if self.split.rotations:
            return "rotations"
        return self.symmetries if part == "train" else "none"

    def table(self, part: str) -> ClassTable:
        """The classes and image indices of train, val or test; it holds no pixels."""
        assert part in PARTS, part
        store = self.store
        chosen = np.isin(store.class_names, np.array(list(self.split.classes[part]), dtype=str))[store.labels]
        if self.split.images is not None:
            chosen &= np.isin(store.image_names, np.array(list(self.split.images[part]), dtype=str))
        table = ClassTable.build(
            store.labels, store.class_names.tolist(), store.class_groups.tolist(), np.flatnonzero(chosen)
        )
        if not table.n_classes:
            raise UserError(f"dataset.split={self.split.name}: its {part} part holds no classes of {self.name}")
        symmetries = self.symmetries_of(part)
        if symmetries == "none":
            return table
        return table.with_symmetries(SYMMETRIES[symmetries], stride=len(store.labels))

    def viewer(self, part: str, device: torch.device) -> Viewer:
        """Where the indices of `table(part)` become images, on `device`."""
        return Viewer(
            Images(self.pixels),
            self.standardise,
            symmetries=self.symmetries_of(part) != "none",
            device=device,
        )

    def fixed_runs(self, runs: FixedRuns, device: torch.device) -> Viewer:
        """Where the positions of `runs.items()` become images, ingested and standardised as this data set's are."""
        channels, image_size, _ = self.image_shape
        store = open_store(runs, image_size=image_size, channels=channels, cache=self.cache)
        return Viewer(Images(torch.from_numpy(store.pixels)), self.standardise, symmetries=False, device=device)
