"""CIFAR-100 (Krizhevsky 2009): 60,000 photographs of 32 x 32 pixels, 100 classes in 20 superclasses, 600 images each.

Read from its binary version, downloaded where it is absent. Two divisions of its classes are in use: `cifar_fs`
(Bertinetto et al. 2019: 64 / 16 / 20 classes, mixed over the superclasses) and `fc100` (Oreshkin et al. 2018: 60 / 20 /
20, by whole superclasses, which is harder).
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot_runner.data.download import fetched
from fewshot_runner.data.source import PARTS, Item, Source, Split
from fewshot_runner.errors import UserError

BASE = "cifar-100-binary"
ARCHIVE = f"https://www.cs.toronto.edu/~kriz/{BASE}.tar.gz"
MD5 = "03b5dce01913d631647c71ecec9e9cb8"
IMAGES = {"train": 500, "test": 100}  # of each class in the two files, which both serve every part
NAMES = "fine_label_names.txt"  # of the classes, by their number
SIDE = 32
RECORD = 2 + 3 * SIDE * SIDE  # bytes: number of the superclass, of the class, then red, green and blue rows
REMEDY = "delete it and let fsl download it again"

SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {name: superclass for superclass, names in SUPERCLASSES.items() for name in names.split()}
CIFAR_FS = {
    "val": "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea shark "
    "television tractor",
    "test": "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper table "
    "telephone wardrobe whale woman worm",
}
FC100 = {
    "val": "large_carnivores large_omnivores_and_herbivores non-insect_invertebrates small_mammals",
    "test": "aquatic_mammals insects medium_mammals people",
}


class Cifar100(Source):
    """Items are named "train/00017" by file and place, classes "fish/shark" with the superclass as their group."""

    name = "cifar100"

    def __init__(self, *, root: str, download: bool = True) -> None:
        place = Path(root).expanduser() / BASE
        archive = place.with_name(f"{BASE}.tar.gz")
        missing = f"CIFAR-100 (161 MB) is neither {place} nor {archive}"
        self.place = place if place.is_dir() else fetched(ARCHIVE, archive, md5=MD5, download=download, missing=missing)

    def identity(self) -> dict[str, Any]:
        files = sorted(self.place.iterdir()) if self.place.is_dir() else [self.place]
        stamps = {file.name: [(status := file.stat()).st_size, status.st_mtime_ns] for file in files}
        return {"name": self.name, "version": 1, "files": stamps}

    def items(self) -> Sequence[Item]:
        names = self._content[NAMES].decode(errors="replace").split()
        if sorted(names) != sorted(SUPERCLASS_OF):
            raise self._damaged(f"{NAMES} lists other classes")
        return [
            Item(
                name=f"{part}/{number:05d}",
                class_name=f"{SUPERCLASS_OF[names[label]]}/{names[label]}",
                group=SUPERCLASS_OF[names[label]],
            )
            for part, records in self._records.items()
            for number, label in enumerate(records[:, 1])
        ]

    def image(self, index: int) -> Image.Image:
        for records in self._records.values():
            if index < len(records):
                return Image.fromarray(records[index, 2:].reshape(3, SIDE, SIDE).transpose(1, 2, 0))
            index -= len(records)
        raise IndexError(index)

    def split(self, name: str) -> Split:
        lists = {"cifar_fs": CIFAR_FS, "fc100": FC100}
        if name not in lists:
            raise UserError(f"dataset.split={name}: CIFAR-100 has the splits {' and '.join(lists)}")
        part_of = {listed: part for part, names in lists[name].items() for listed in names.split()}
        classes: dict[str, list[str]] = {part: [] for part in PARTS}
        for fine, superclass in SUPERCLASS_OF.items():
            part = part_of.get(fine if name == "cifar_fs" else superclass, "train")
            classes[part].append(f"{superclass}/{fine}")
        return Split(name, classes)

    @cached_property
    def _records(self) -> dict[str, np.ndarray]:
        """(I, RECORD) bytes of each file."""
        records = {}
        for part, of_class in IMAGES.items():
            content = np.frombuffer(self._content[f"{part}.bin"], dtype=np.uint8)
            if content.size != of_class * len(SUPERCLASS_OF) * RECORD:
                raise self._damaged(f"{part}.bin has {content.size:,} bytes")
            records[part] = content.reshape(-1, RECORD)
            counts = np.bincount(records[part][:, 1], minlength=len(SUPERCLASS_OF))
            if set(counts) != {of_class}:
                raise self._damaged(f"{part}.bin has not {of_class} images of each class")
        return records

    @cached_property
    def _content(self) -> dict[str, bytes]:
        wanted = [NAMES, *(f"{part}.bin" for part in IMAGES)]
        try:
            if self.place.is_dir():
                return {name: (self.place / name).read_bytes() for name in wanted}
            unpacked = io.BytesIO(gzip.decompress(self.place.read_bytes()))  # whole: its checksum stands at the end
            with tarfile.open(fileobj=unpacked) as archive:
                return {name: archive.extractfile(f"{BASE}/{name}").read() for name in wanted}
        except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
            raise self._damaged(" ".join(str(error).split())) from error

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self.place}: CIFAR-100 is damaged or incomplete ({why}); {REMEDY}")
