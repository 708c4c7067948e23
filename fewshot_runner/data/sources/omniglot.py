"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 handwritten characters of 50 alphabets, 20 drawers each.

Found as folders, as zip files, or downloaded, in the layout that torchvision leaves. Several protocols live on it, and
their figures are not comparable: `lake` (30 background alphabets, five of which validate, against 20 evaluation
alphabets), `koch` (Koch et al. 2015: 40 alphabets, all 30 background ones to train and ten evaluation ones to validate,
against the ten of the runs), `vinyals` (Matching Networks 2016: 1,028 / 172 / 423 characters, each rotation a class of
its own), and `lake_runs`, the authors' 20 fixed runs of 20-way one-shot classification within an alphabet.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from fewshot_runner.data.archive import Archive
from fewshot_runner.data.decode import DECODER
from fewshot_runner.data.download import fetched
from fewshot_runner.data.files import Directory, Files, Listing
from fewshot_runner.data.source import PARTS, FixedRuns, Item, Run, Source, Split
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
REMEDY = "delete it and let fsl download it again"


class Omniglot(Source):
    """Items are named "images_background/Greek/character07/0394_12.png", classes "Greek/character07"."""

    name = "omniglot"

    def __init__(self, *, root: str, download: bool = True) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self.places = {part: self._find(part) for part in CHARACTERS}

    def _find(self, part: str) -> Path:
        """The folder or zip file of images_background or images_evaluation; downloaded where it is absent."""
        folder, archive = self.root / BASE / part, self.root / BASE / f"{part}.zip"
        if folder.is_dir():
            return folder
        missing = f"Omniglot is neither {folder} nor {archive}"
        return fetched(f"{ARCHIVES}/{part}.zip", archive, md5=MD5[part], download=self.download, missing=missing)

    @cached_property
    def _files(self) -> dict[str, Files]:
        """Where the drawings of each part are read, in which their names begin with the part's."""
        return {
            part: Directory(place.parent) if place.is_dir() else Archive(place, remedy=REMEDY)
            for part, place in self.places.items()
        }

    @cached_property
    def _listings(self) -> dict[str, Listing]:
        return {part: files.listing(part) for part, files in self._files.items()}

    def identity(self) -> dict[str, Any]:
        parts = {part: files.identity() or self._listings[part].identity() for part, files in self._files.items()}
        return {"name": self.name, "version": 2, "decoder": DECODER, **parts}

    def items(self) -> Sequence[Item]:
        return self._items

    @cached_property
    def _items(self) -> list[Item]:
        items = []
        for part, listing in self._listings.items():
            found = [_item(name) for name in sorted(listing.images) if _is_drawing(name)]
            drawings = Counter(item.class_name for item in found)
            wrong = [f"{name} has {count}" for name, count in drawings.items() if count != DRAWERS]
            if len(drawings) != CHARACTERS[part] or wrong:
                raise UserError(
                    f"{self.places[part]}: Omniglot is incomplete: {len(drawings)} characters where "
                    f"{CHARACTERS[part]} belong, {DRAWERS} drawings each "
                    f"({'; '.join(wrong[:3]) or 'whole characters are missing'}); {REMEDY}"
                )
            items += found
        return items

    def image(self, index: int) -> Image.Image:
        name = self._items[index].name
        return self._files[name.partition("/")[0]].image(name)

    def split(self, name: str) -> Split:
        if name == "lake":
            val, train = _divided(self._classes("images_background"), LAKE_VALIDATION)
            return Split(name, {"train": train, "val": val, "test": self._classes("images_evaluation")})
        if name == "koch":
            test, val = _divided(self._classes("images_evaluation"), RUNS_ALPHABETS)
            return Split(name, {"train": self._classes("images_background"), "val": val, "test": test})
        if name == "vinyals":
            return Split(name, {part: self._vinyals(part) for part in PARTS}, rotations=True)
        raise UserError(f"dataset.split={name}: Omniglot has the splits lake, koch and vinyals")

    def _classes(self, part: str) -> list[str]:
        return sorted({item.class_name for item in self._items if item.name.startswith(f"{part}/")})

    def _vinyals(self, part: str) -> list[str]:
        """The base characters of a published list, whose lines read "Greek/character07/rot090"."""
        path = fetched(
            f"{VINYALS_LISTS}/{part}.txt",
            self.root / "splits" / "omniglot" / "vinyals" / f"{part}.txt",
            md5=VINYALS_MD5[part],
            download=self.download,
            key="dataset.source.download",  # only a data set's own source is split
        )
        lines = path.read_text(errors="replace").split()
        known = {item.class_name for item in self._items}
        characters = sorted({line.rpartition("/")[0] for line in lines})
        unknown = [character for character in characters if character not in known]
        expected = VINYALS_CHARACTERS[part]
        if unknown or len(characters) != expected or len(set(lines)) != 4 * expected:
            found = f"{len(characters)} characters under {len(set(lines))} rotations"
            raise UserError(
                f"{path}: not the published list of {expected} characters under 4 rotations each "
                f"({'unknown: ' + ', '.join(unknown[:3]) if unknown else found}); {REMEDY}"
            )
        return characters


def _divided(classes: Sequence[str], alphabets: Sequence[str]) -> tuple[list[str], list[str]]:
    """The classes of these alphabets, and the others."""
    inside = {name: name.partition("/")[0] in alphabets for name in classes}
    return [name for name in classes if inside[name]], [name for name in classes if not inside[name]]


def _is_drawing(name: str) -> bool:
    """Whether an image is one: whoever packs an archive again may add others."""
    return name.endswith(".png") and name.count("/") == 3


def _item(name: str) -> Item:
    """ "images_background/Greek/character07/0394_12.png": the 12th drawing of a character of the Greek alphabet."""
    _, alphabet, character, _ = name.split("/")
    return Item(name=name, class_name=f"{alphabet}/{character}", group=alphabet)


class LakeRuns(FixedRuns):
    """The authors' 20 runs: 20 characters of one alphabet by one drawer, 20 drawings by another to be matched.

    400 trials in all. Their characters are evaluation characters of the splits `lake` and `koch`; under `vinyals` some
    of them are trained on.
    """

    name = "lake_runs"
    of_splits = ("lake", "koch")

    def __init__(self, *, root: str, download: bool = True) -> None:
        place = Path(root).expanduser() / BASE / "one-shot-classification" / "all_runs.zip"
        self.place = fetched(RUNS_ARCHIVE, place, md5=RUNS_MD5, download=download)
        self._files = Archive(self.place, remedy=REMEDY)
        self._names = sorted(self._files.listing().images)
        if len(self._names) != 800:
            raise UserError(f"{self.place}: {len(self._names)} images where 800 belong; {REMEDY}")

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": 2, "decoder": DECODER, **self._files.identity()}

    def items(self) -> Sequence[Item]:
        """Support images are of the class their label file gives them; test images of the class that they match."""
        classes = {name: name for name in self._names if "/training/" in name}
        for number in range(1, 21):
            classes |= self._answers(f"run{number:02d}")
        return [Item(name=name, class_name=classes[name], group=name.split("/")[0]) for name in self._names]

    def image(self, index: int) -> Image.Image:
        return self._files.image(self._names[index])

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
        lines = [line.split() for line in self._files.read(name).decode(errors="replace").split("\n") if line.strip()]
        known = set(self._names)
        if len(lines) != 20 or not all(len(line) == 2 and known.issuperset(line) for line in lines):
            raise UserError(f"{self.place}: {name} does not name 20 pairs of images; {REMEDY}")
        return dict(lines)


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
