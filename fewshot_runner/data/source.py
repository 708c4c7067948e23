"""Where images come from: the contract of a source, and the named division of its classes into train, val and test."""

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source, before its pixels are read.

    `name` is unique within the source (a relative path, say); `class_name` is unique across groups, so
    "Greek/character07" rather than "character07"; `group` is the alphabet or superclass, "" where there is none;
    `part` is "train", "val" or "test" where the data itself says so, else "". An image of part "test" that nobody has
    labelled has the class name "".
    """

    name: str
    class_name: str
    group: str = ""
    part: str = ""


@dataclass(frozen=True)
class Split:
    """A published or declared division of classes (or of images) into train, val and test.

    `classes` names the classes of each part. Where the same class may stand in several parts, `images` names the
    images of each part as well. With `rotations`, every class stands for four: the class turned by 0, 90, 180 and
    270 degrees; since parts are divided by base class first, no rotation of a test class is ever trained on.
    """

    name: str
    classes: Mapping[str, Sequence[str]]
    images: Mapping[str, Sequence[str]] | None = None
    rotations: bool = False

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that differ whenever any part holds other classes or images."""
        content: dict[str, Any] = {"classes": {part: sorted(names) for part, names in self.classes.items()}}
        if self.images is not None:
            content["images"] = {part: sorted(names) for part, names in self.images.items()}
        content["rotations"] = self.rotations
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def normal(name: str) -> str:
    """One spelling of the name of a class: a Mac writes an accent as a sign of its own, others do not."""
    return unicodedata.normalize("NFC", name)


class Source(ABC):
    """A set of labelled images that can be listed, identified, read one by one, and divided into parts.

    Constructors are cheap: they look for the data and raise `UserError` if it is missing, but read no image.
    Images come upright (EXIF orientation applied), in mode "L" or "RGB", at their own size. `unknown_label` is the
    class name that means "none of the known": its images are no class to be learnt.
    """

    name: str
    unknown_label: str | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything on which `items` and `image` depend, as JSON: sizes and times of files, versions, options.

        Two sources of equal identity hold the same images; the store's cache key is made from it.
        """

    @abstractmethod
    def items(self) -> Sequence[Item]:
        """All images in a fixed order that does not depend on the file system's.

        Raises `UserError` where the listing shows that data is missing or damaged.
        """

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """The decoded image of `items()[index]`.

        Raises `UserError` that names the file where it cannot be decoded.
        """

    def checksum(self, index: int) -> int | None:
        """64 bits, equal for files of equal content, of the file that holds `items()[index]`.

        None where images are made, or fixed by their authors.
        """
        return None

    def made_from(self) -> dict[str, Any]:
        """Of images that are made, what their pixels follow from besides their names, as JSON; {} of others."""
        return {}

    @abstractmethod
    def split(self, name: str) -> Split:
        """The division called `name`; raises `UserError` that lists the known names."""

    def remarks(self, split: str) -> list[str]:
        """What a user of the division called `split` should know of the data, in a line each."""
        return []


@dataclass(frozen=True, slots=True)
class Run:
    """One fixed trial set: positions in `items()` and labels 0..N-1, all of equal size within a `FixedRuns`."""

    support: Sequence[int]
    support_labels: Sequence[int]
    query: Sequence[int]
    query_labels: Sequence[int]


class FixedRuns(Source):
    """A source whose episodes the authors fixed. `of_splits` names the splits whose test classes they show."""

    of_splits: tuple[str, ...]

    @abstractmethod
    def runs(self) -> Sequence[Run]:
        """The episodes, in the authors' order."""

    def split(self, name: str) -> Split:
        classes = [item.class_name for item in self.items()]
        return Split(self.name, {"train": (), "val": (), "test": classes})
