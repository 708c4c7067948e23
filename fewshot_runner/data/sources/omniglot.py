"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 handwritten characters of 50 alphabets, 20 drawers each.

Found as folders, as zip files, or downloaded, in the layout that torchvision leaves. Several protocols live on it, and
their figures are not comparable: `lake` (30 background alphabets, five of which validate, against 20 evaluation
alphabets), `koch` (Koch et al. 2015: 40 alphabets, all 30 background ones to train and ten evaluation ones to validate,
against the ten of the runs), `vinyals`
(Matching Networks 2016: 1,028 / 172 / 423 characters, each rotation a class of its own), and `lake_runs`, the
authors' 20 fixed runs of 20-way one-shot classification within an alphabet.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from fewshot_runner.data.decode import DECODER, decode
from fewshot_runner.data.download import fetch
from fewshot_runner.data.source import FixedRuns, Item, Run, Source, Split
from fewshot_runner.errors import UserError

BASE = "omniglot-py"
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
DRAWERS = 20
MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
ARCHIVES = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
RUNS_ARCHIVE = f"{ARCHIVES}/one-shot-classification/all_runs.zip"
RUNS_MD5 = "e8996daecdf12afeeb4a53a179f06b19"
VINYALS_CHARACTERS = {"train": 1028, "val": 172, "test": 423}
VINYALS_MD5 = {
    "train": "433d1fcc2b20dcee2983ceb524586f7f",
    "val": "78c535fa427b12b6596908376a0b3f34",
    "test": "43534e6d5f9e74acbb7de1b4874abad8",
}
VINYALS_LISTS = "https://raw.githubusercontent.com/jakesnell/prototypical-networks/master/data/omniglot/splits/vinyals"
# Ours: Lake et al. name no validation set. Five whole background alphabets of different scripts and sizes.
LAKE_VALIDATION = ("Armenian", "Burmese_(Myanmar)", "Japanese_(katakana)", "N_Ko", "Tagalog")
# The ten evaluation alphabets whose characters the authors' runs show, told by their pixels.
RUNS_ALPHABETS = (
    "Atlantean", "Ge_ez", "Glagolitic", "Gurmukhi", "Kannada", "Malayalam", "Manipuri",
    "Old_Church_Slavonic_(Cyrillic)", "Tengwar", "Tibetan",
)  # fmt: skip


class Omniglot(Source):
    """Items are named "images_background/Greek/character07/0394_12.png", classes "Greek/character07"."""

    name = "omniglot"

    def __init__(self, *, root: str, download: bool = True) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self.places = {part: self._find(part) for part in CHARACTERS}
        self._archives: dict[str, zipfile.ZipFile] = {}

    def _find(self, part: str) -> Path:
        """The folder or zip file of images_background or images_evaluation; downloaded where it is absent."""
        folder, archive = self.root / BASE / part, self.root / BASE / f"{part}.zip"
        if folder.is_dir():
            return folder
        if not archive.is_file():
            if not self.download:
                raise UserError(
                    f"dataset.root={self.root}: Omniglot not found: neither {folder} nor {archive}; "
                    "set dataset.root or FSL_DATA to the folder that holds omniglot-py, or "
                    "dataset.source.download=true"
                )
            fetch(f"{ARCHIVES}/{part}.zip", archive, md5=MD5[part])
        return archive

    def identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = {"name": self.name, "version": 1, "decoder": DECODER}
        for part, place in self.places.items():
            if place.is_dir():
                files = [(str(file.relative_to(place)), file.stat()) for file in sorted(place.glob("*/*/*.png"))]
                stamps = json.dumps([(name, status.st_size, status.st_mtime_ns) for name, status in files])
                identity[part] = {"images": len(files), "files": hashlib.sha256(stamps.encode()).hexdigest()}
            else:
                identity[part] = {"size": place.stat().st_size, "mtime_ns": place.stat().st_mtime_ns}
        return identity

    def items(self) -> Sequence[Item]:
        return self._items

    @cached_property
    def _items(self) -> list[Item]:
        items = []
        for part, place in self.places.items():
            if place.is_dir():
                names = [f"{part}/{file.relative_to(place).as_posix()}" for file in place.glob("*/*/*.png")]
            else:
                names = [name for name in self._archive(part).namelist() if _is_drawing(name, part)]
            found = [_item(name) for name in sorted(names)]
            drawings: dict[str, int] = {}
            for item in found:
                drawings[item.class_name] = drawings.get(item.class_name, 0) + 1
            wrong = [f"{name} has {count}" for name, count in drawings.items() if count != DRAWERS]
            if len(drawings) != CHARACTERS[part] or wrong:
                raise UserError(
                    f"{place}: Omniglot is incomplete: {len(drawings)} characters where {CHARACTERS[part]} belong, "
                    f"{DRAWERS} drawings each ({'; '.join(wrong[:3]) or 'whole characters are missing'}); "
                    "delete it and let fsl download it again"
                )
            items += found
        return items

    def _archive(self, part: str) -> zipfile.ZipFile:
        if part not in self._archives:
            try:
                self._archives[part] = zipfile.ZipFile(self.places[part])
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(
                    f"{self.places[part]}: not a readable zip file ({error}); delete it and let fsl download it again"
                ) from error
        return self._archives[part]

    def image(self, index: int) -> Image.Image:
        name = self._items[index].name
        part, _, inner = name.partition("/")
        place = self.places[part]
        if place.is_dir():
            return decode(place / inner, str(place / inner))
        try:
            content = self._archive(part).read(name)
        except (zipfile.BadZipFile, OSError, zlib.error) as error:
            raise UserError(f"{place}: {name} is damaged ({error}); delete it and let fsl download it again") from error
        return decode(content, f"{place}/{name}")

    def split(self, name: str) -> Split:
        if name == "lake":
            background = self._classes("images_background")
            return Split(
                name,
                {
                    "train": [c for c in background if c.split("/")[0] not in LAKE_VALIDATION],
                    "val": [c for c in background if c.split("/")[0] in LAKE_VALIDATION],
                    "test": self._classes("images_evaluation"),
                },
            )
        if name == "koch":
            evaluation = self._classes("images_evaluation")
            return Split(
                name,
                {
                    "train": self._classes("images_background"),
                    "val": [c for c in evaluation if c.split("/")[0] not in RUNS_ALPHABETS],
                    "test": [c for c in evaluation if c.split("/")[0] in RUNS_ALPHABETS],
                },
            )
        if name == "vinyals":
            return Split(name, {part: self._vinyals(part) for part in ("train", "val", "test")}, rotations=True)
        raise UserError(f"dataset.split={name}: Omniglot has the splits lake, koch and vinyals")

    def _classes(self, part: str) -> list[str]:
        return sorted({item.class_name for item in self._items if item.name.startswith(f"{part}/")})

    def _vinyals(self, part: str) -> list[str]:
        """The base characters of a published list, whose lines read "Greek/character07/rot090"."""
        path = self.root / "splits" / "omniglot" / "vinyals" / f"{part}.txt"
        if not path.is_file():
            if not self.download:
                raise UserError(f"{path}: the published list is missing; set dataset.source.download=true to fetch it")
            fetch(f"{VINYALS_LISTS}/{part}.txt", path, md5=VINYALS_MD5[part])
        lines = path.read_text(errors="replace").split()
        known = {item.class_name for item in self._items}
        characters = sorted({line.rpartition("/")[0] for line in lines})
        unknown = [character for character in characters if character not in known]
        expected = VINYALS_CHARACTERS[part]
        if unknown or len(characters) != expected or len(set(lines)) != 4 * expected:
            found = f"{len(characters)} characters under {len(set(lines))} rotations"
            raise UserError(
                f"{path}: not the published list of {expected} characters under 4 rotations each "
                f"({'unknown: ' + ', '.join(unknown[:3]) if unknown else found}); "
                "delete it and let fsl download it again"
            )
        return characters


def _is_drawing(name: str, part: str) -> bool:
    """Whether a member of an archive is one: whoever packs it again may add others, as macOS does."""
    return name.startswith(f"{part}/") and name.endswith(".png") and name.count("/") == 3


def _item(name: str) -> Item:
    """ "images_background/Greek/character07/0394_12.png": the 12th drawing of a character of the Greek alphabet."""
    _, alphabet, character, _ = name.split("/")
    return Item(name=name, class_name=f"{alphabet}/{character}", group=alphabet)


class LakeRuns(FixedRuns):
    """The authors' 20 runs: 20 characters of one alphabet by one drawer, 20 drawings by another to be matched.

    400 trials in all. Their characters are evaluation characters of the split `lake`; under `vinyals` some of them
    are trained on, so the figure belongs to `lake` alone.
    """

    name = "lake_runs"
    of_splits = ("lake", "koch")

    def __init__(self, *, root: str, download: bool = True) -> None:
        self.place = Path(root).expanduser() / BASE / "one-shot-classification" / "all_runs.zip"
        if not self.place.is_file():
            if not download:
                raise UserError(f"{self.place}: the fixed runs are missing; set dataset.source.download=true")
            fetch(RUNS_ARCHIVE, self.place, md5=RUNS_MD5)
        try:
            self._archive = zipfile.ZipFile(self.place)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{self.place}: not a readable zip file ({error}); delete it to have it fetched") from error
        self._names = sorted(name for name in self._archive.namelist() if name.endswith(".png"))
        if len(self._names) != 800:
            raise UserError(f"{self.place}: {len(self._names)} images where 800 belong; delete it to have it fetched")

    def identity(self) -> dict[str, Any]:
        status = self.place.stat()
        stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        return {"name": self.name, "version": 1, "decoder": DECODER, **stamp}

    def items(self) -> Sequence[Item]:
        """Support images are of the class their label file gives them; test images of the class that they match."""
        classes = {name: name for name in self._names if "/training/" in name}
        for number in range(1, 21):
            classes |= self._answers(f"run{number:02d}")
        return [Item(name=name, class_name=classes[name], group=name.split("/")[0]) for name in self._names]

    def image(self, index: int) -> Image.Image:
        name = self._names[index]
        return decode(self._read(name), f"{self.place}/{name}")

    def runs(self) -> Sequence[Run]:
        position = {name: index for index, name in enumerate(self._names)}
        runs = []
        for number in range(1, 21):
            answers = self._answers(f"run{number:02d}")
            support = sorted(set(answers.values()))
            runs.append(
                Run(
                    support=[position[name] for name in support],
                    support_labels=list(range(len(support))),
                    query=[position[name] for name in answers],
                    query_labels=[support.index(answer) for answer in answers.values()],
                )
            )
        return runs

    def _answers(self, run: str) -> dict[str, str]:
        """Test image to training image, from lines that read "run01/test/item01.png run01/training/class08.png"."""
        name = f"{run}/class_labels.txt"
        lines = [line.split() for line in self._read(name).decode(errors="replace").split("\n") if line.strip()]
        known = set(self._names)
        if len(lines) != 20 or not all(len(line) == 2 and known.issuperset(line) for line in lines):
            raise UserError(f"{self.place}: {name} does not name 20 pairs of images; delete it to have it fetched")
        return dict(lines)

    def _read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except (zipfile.BadZipFile, OSError, zlib.error, KeyError) as error:
            raise UserError(f"{self.place}: {name} is damaged ({error}); delete it to have it fetched") from error


class TutorialRun(FixedRuns):
    """The single task that a well-known tutorial on siamese networks tests with: 10-way 5-shot, 150 queries.

    The first ten evaluation characters in the order of their folders' names, all of one alphabet; of each, drawers 1 to
    5 are support and 6 to 20 are queries. So few queries of one alphabet leave the figure uncertain by some 7 points.
    """

    name = "tutorial_run"
    of_splits = ("lake",)
    n_way, n_shot = 10, 5

    def __init__(self, *, root: str, download: bool = True) -> None:
        self._omniglot = Omniglot(root=root, download=download)

    @cached_property
    def _positions(self) -> list[int]:
        """Where the run's drawings stand among those of Omniglot: character by character, in the drawers' order."""
        items = self._omniglot.items()
        evaluation = [index for index, item in enumerate(items) if item.name.startswith("images_evaluation/")]
        chosen = sorted({items[index].class_name for index in evaluation})[: self.n_way]
        drawings = [index for index in evaluation if items[index].class_name in chosen]
        return sorted(drawings, key=lambda index: (items[index].class_name, _drawer(items[index].name)))

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": 1, "omniglot": self._omniglot.identity()}

    def items(self) -> Sequence[Item]:
        return [self._omniglot.items()[position] for position in self._positions]

    def image(self, index: int) -> Image.Image:
        return self._omniglot.image(self._positions[index])

    def runs(self) -> Sequence[Run]:
        labels = [position // DRAWERS for position in range(self.n_way * DRAWERS)]
        support = [position for position in range(len(labels)) if position % DRAWERS < self.n_shot]
        query = [position for position in range(len(labels)) if position % DRAWERS >= self.n_shot]
        return [Run(support, [labels[p] for p in support], query, [labels[p] for p in query])]


def _drawer(name: str) -> int:
    """ "images_evaluation/Angelic/character01/0965_07.png" is by the seventh."""
    return int(name.rpartition("_")[2].removesuffix(".png"))
