"""A data set as a run uses it: a source, its store at the run's resolution, and a named split of its classes."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.decode import RESAMPLING
from fewshot_runner.data.division import LEAST, untested
from fewshot_runner.data.images import SYMMETRIES, Images
from fewshot_runner.data.layout import expect_scattered
from fewshot_runner.data.loader import Augmentation, Crop, Viewer
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.data.ragged import RaggedImages
from fewshot_runner.data.source import PARTS, FixedRuns, Source, Split
from fewshot_runner.data.store import Progress, Store, open_store
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.errors import UserError


class Dataset:
    """`table(part)` says what may be drawn, `viewer(part)` turns indices into images.

    `symmetries` multiplies the training classes: "none", "rotations" (times 4) or "dihedral" (times 8, flips as
    well). Validation and test have the plain classes. A split that itself counts rotations as classes has those in
    every part, and no others.
    With `shorter_side`, photographs are kept at their own aspect ratio, resized to that shorter side, and evaluation
    sees the middle `image_size` pixels of each; without, they are kept as squares of `image_size`. `resample` is the
    filter, "bilinear" or "bicubic". In training alone, `crop` cuts out something else than the middle, and `augment`
    changes the batch; what they make must be of `image_size`, which is what the network sees.
    `tests` names further test figures that a run on this data set reports. `keep` puts the pixels where they are to
    stay, on a GPU say.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: str,
        cache: str,
        image_size: int,
        shorter_side: int | None = None,
        resample: str = "bilinear",
        channels: int = 1,
        invert: bool = False,
        centre: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        symmetries: str = "none",
        crop: Crop | None = None,
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
        if resample not in RESAMPLING:
            raise UserError(f"dataset.resample={resample}: choose {' or '.join(RESAMPLING)}")
        if shorter_side is not None and shorter_side < image_size:
            raise UserError(
                f"dataset.shorter_side={shorter_side}: give dataset.image_size={image_size} pixels or more, or null "
                "for squares"
            )
        for key, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise UserError(f"dataset.{key}={values}: give one value a channel; dataset.channels={channels}")
        self.source = source
        self.name = source.name
        self.split: Split = source.split(split)
        self.cache = Path(cache).expanduser()
        self.image_shape = (channels, image_size, image_size)
        self.shorter_side = shorter_side
        self.resample = resample
        self.standardise = Standardise(invert=invert, centre=centre, mean=mean, std=std)
        self.symmetries = symmetries
        self.crop = crop
        self.augment = augment
        self.tests = {name: dict(test) for name, test in (tests or {}).items() if test is not None}
        self._check_symmetries()
        self._check_training_view()
        self._tables: dict[tuple[str, bool], ClassTable] = {}
        self.store = self._open_store(source, progress)
        self.images = self._images(self.store, keep)
        self._check_centred()

    def _check_centred(self) -> None:
        """Raises `UserError` where paper would be taken for the drawing, and ink come in from beyond the border."""
        if not self.standardise.centre:
            return
        pixels, inverted = self.store.pixels, self.standardise.invert
        some = pixels[:256] if self.store.sizes is None else pixels[: 2**20]  # pictures; bytes where these lie flat
        if (some.mean() > 255 / 2) != inverted:
            now, other = (str(each).lower() for each in (inverted, not inverted))
            raise UserError(
                f"dataset.centre=true moves light drawings on black, and with dataset.invert={now} these are dark on "
                f"light paper; set dataset.invert={other}, or dataset.centre=false"
            )

    def _check_symmetries(self) -> None:
        if self.shorter_side is None:
            return
        if self.split.rotations:
            raise UserError(
                f"dataset.split={self.split.name}: its classes are turned by quarters, which needs square images; "
                "set dataset.shorter_side=null"
            )
        if self.symmetries != "none":
            raise UserError(
                f"dataset.symmetries={self.symmetries} needs square images; set it to none, or "
                f"dataset.shorter_side=null (now {self.shorter_side})"
            )

    def _check_training_view(self) -> None:
        """Raises `UserError` unless `crop` takes bytes, `augment` takes values in 0..1, and both together make what the
        network is built for.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (1, *self.image_shape)
        images = torch.zeros(shape)
        if self.crop is not None:
            images = _made("dataset.crop", self.crop, [images[0].byte()], generator)
        if self.augment is not None:
            images = _made("dataset.augment", self.augment, images, generator)
        if images.shape != shape:
            made, wanted = (" x ".join(map(str, size)) for size in (images.shape[1:], self.image_shape))
            raise UserError(
                f"dataset.crop and dataset.augment make images of {made} for a network of {wanted}: end them with a "
                f"crop of size={self.image_shape[1]}, or change dataset.image_size"
            )

    def symmetries_of(self, part: str) -> str:
        if self.split.rotations:
            return "rotations"
        return self.symmetries if part == "train" else "none"

    def table(self, part: str, *, unknown: bool = False) -> ClassTable:
        """The classes and image indices of train, val or test; it holds no pixels.

        The class that means "none of the known" is there only with `unknown`: its images have nothing in common.
        """
        assert part in PARTS, part
        if (part, unknown) not in self._tables:
            self._tables[part, unknown] = self._table(part, unknown=unknown)
        return self._tables[part, unknown]

    def _table(self, part: str, *, unknown: bool) -> ClassTable:
        store = self.store
        left_out = {"", None if unknown else self.source.unknown_label}  # "": nobody has labelled it
        chosen = self.images_of(part, left_out)
        table = ClassTable.build(store.labels, store.class_names.tolist(), store.class_groups.tolist(), chosen)
        if not table.n_classes:
            of_test = " (test is for fsl eval, with episodes or a trained head)" * (self.split.name == "test")
            raise UserError(
                f"dataset.split={self.split.name}: its {part} part holds no classes of {self.name}; choose another "
                f"dataset.split{of_test}"
            )
        symmetries = self.symmetries_of(part)
        if symmetries == "none":
            return table
        return table.with_symmetries(SYMMETRIES[symmetries], stride=len(store.labels))

    @cached_property
    def provenance(self) -> Provenance:
        copies = self.copies("test", of=("train", "val")) or None
        return Provenance(self.name, self.split.name, self.split.hash, self.images_hash, self.files_hash, copies)

    @cached_property
    def images_hash(self) -> str:
        """Sixteen hexadecimal digits that tell which images there are: their names and classes, in their order, and
        what they are made from, if they are made.

        Nothing of their pixels: the same images are the same at whatever size a run keeps them, and wherever they lie.
        """
        store = self.store
        digest = hashlib.sha256()
        if made := self.source.made_from():
            digest.update(json.dumps(made, sort_keys=True).encode())
        for names in (store.image_names, store.class_names):
            digest.update(f"{names.dtype.str} {len(names)} ".encode())
            digest.update(np.ascontiguousarray(names).view(np.uint8))
        digest.update(np.ascontiguousarray(store.labels))
        return digest.hexdigest()[:16]

    @cached_property
    def files_hash(self) -> str | None:
        """A hash of what the images' files hold; None for data that are not a user's own, and so do not change."""
        checksums = self.store.checksums
        return None if checksums is None else hashlib.sha256(checksums.tobytes()).hexdigest()[:16]

    def files_of(self, *parts: str) -> np.ndarray | None:
        """The checksums of the files of these parts, each once; None for data that are not a user's own."""
        checksums = self.store.checksums
        if checksums is None:
            return None
        return np.unique(np.concatenate([checksums[self.images_of(part)] for part in parts]))

    def remarks(self, *, searched: bool) -> list[str]:
        """What in the data keeps a test from telling all, in a line each; `searched`, one of the tests is a retrieval,
        which alone asks for what is none of the known classes.
        """
        said = self.source.remarks(self.split.name)
        unknown = self.source.unknown_label
        if not searched and unknown is not None:
            count = int((self.store.class_names == unknown)[self.store.labels].sum())
            said.append(f"{count:,} images are labelled {unknown}, which is no class: only a retrieval asks for them")
        if searched and unknown is not None and unknown not in self.split.classes["val"]:
            said.append(
                f"no image labelled {unknown} is in the val part to fit a threshold on: {unknown} is never answered"
            )
        if searched and unknown is not None and set(self.split.classes["test"]) == {unknown}:
            said.append(
                f"all test images are labelled {unknown}: no figure says whether known individuals are recognised"
            )
        if self.split.rotations and self.symmetries not in ("none", "rotations"):
            said.append(
                f"dataset.symmetries={self.symmetries} has no effect: the split {self.split.name} has every class in "
                "its four rotations, in each part"
            )
        if names := untested(self.split):
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            verb = "class has" if len(names) == 1 else "classes have"
            said.append(
                f"{len(names)} {verb} no test images (of a class of fewer than {LEAST} images all are trained on): "
                f"{shown}"
            )
        if count := self.copies("val", of=("train",)):
            said.append(f"{count:,} of the images for validation are copies of training images: figures are inflated")
        if count := self.provenance.copies:
            said.append(
                f"{count:,} of the images for testing are copies of images for training or validation: figures are "
                "inflated"
            )
        return said

    def copies(self, part: str, *, of: Sequence[str]) -> int:
        """How many images of a part are, file for file, images of others: figures on those are inflated."""
        if self.store.checksums is None:
            return 0
        return int(np.isin(self.store.checksums[self.images_of(part)], self.files_of(*of)).sum())

    def classes_of(self, *parts: str) -> list[str]:
        """The names of the classes of these parts, without the one that means "none of the known"."""
        names = {name for part in parts for name in self.split.classes[part]}
        return sorted(names - {"", self.source.unknown_label})

    def images_of(self, part: str, left_out: Collection[str | None] = ()) -> np.ndarray:
        """The indices of a part's images, labelled or not; of those in the store, without symmetries."""
        store = self.store
        names = [name for name in self.split.classes[part] if name not in left_out]
        chosen = np.isin(store.class_names, np.array(names, dtype=str))[store.labels]
        if self.split.images is not None:
            chosen &= np.isin(store.image_names, np.array(list(self.split.images[part]), dtype=str))
        return np.flatnonzero(chosen)

    def unlabelled(self) -> np.ndarray:
        """The indices of the images that nobody has labelled, in the source's order."""
        return np.flatnonzero((self.store.class_names == "")[self.store.labels])

    def viewer(self, part: str, device: torch.device) -> Viewer:
        """Where the indices of `table(part)` become images, on `device`."""
        return Viewer(
            self.images,
            self.standardise,
            symmetries=self.symmetries_of(part) != "none",
            device=device,
            crop=self.crop if part == "train" else None,
        )

    def fixed_runs(self, runs: FixedRuns, device: torch.device) -> Viewer:
        """Where the positions of `runs.items()` become images, ingested and standardised as this data set's are."""
        images = self._images(self._open_store(runs))
        return Viewer(images, self.standardise, symmetries=False, device=device)

    def _open_store(self, source: Source, progress: Progress | None = None) -> Store:
        channels, image_size, _ = self.image_shape
        return open_store(
            source,
            image_size=image_size,
            shorter_side=self.shorter_side,
            resample=self.resample,
            channels=channels,
            cache=self.cache,
            progress=progress,
        )

    def _images(self, store: Store, keep: Callable[[Tensor], Tensor] = lambda pixels: pixels) -> Images | RaggedImages:
        mapped = torch.from_numpy(store.pixels)
        pixels = keep(mapped)
        if store.sizes is None:
            if pixels is mapped:
                expect_scattered(store.pixels)
            return Images(pixels)
        channels, image_size, _ = self.image_shape
        return RaggedImages(pixels, offsets=store.offsets, sizes=store.sizes, channels=channels, view_size=image_size)


def _made(key: str, change: Crop | Augmentation, images: Any, generator: torch.Generator) -> Tensor:
    """What `change` makes of `images`; raises `UserError` where it is made for others, or makes no values in 0..1."""
    remedy = (
        "a crop takes bytes, as RandomResizedCrop does, and makes values in 0..1, which is what transforms of "
        "dataset.augment take, CentreCrop among them"
    )
    try:
        made = change(images, generator)
    except (TypeError, AttributeError) as error:
        raise UserError(f"{key}: cannot be used there ({error}); {remedy}") from error
    if not made.is_floating_point():
        raise UserError(f"{key}: makes {made.dtype} of images; {remedy}")
    return made
