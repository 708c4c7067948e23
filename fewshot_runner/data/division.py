"""How a user's own data are divided into train, val and test: as the items say, or by a fixed hash of names.

The hash is SHA-256 of class names or image names, so that a division is the same on every machine and does not change
when files are copied, packed into an archive, or listed in another order.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewshot_runner.data.source import PARTS, Item, Split
from fewshot_runner.errors import UserError

_PART_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
LEAST = 3  # images that a class must have before `images` takes some of them away


def part_called(name: str) -> str | None:
    """The part that a folder or a cell called `name` means, in any case of letters; None where it means no part."""
    return _PART_NAMES.get(name.strip().casefold())


def untested(split: Split) -> list[str]:
    """The classes that are trained on and have no image to be tested with, of a split where all should have some."""
    if split.name != "images":
        return []
    return sorted(set(split.classes["train"]) - set(split.classes["test"]))


@dataclass(frozen=True, kw_only=True)
class Division:
    """The splits that a source of declared parts, or of none, offers.

    - `declared`, under the name that the source gives it: as the items say, and `remedy` where they do not;
    - "test": all classes are for testing, whatever parts the data declare: new pictures for a run that is trained;
    - "random": whole classes, for few-shot learning, in the shares `val_fraction` and `test_fraction`;
    - "images": these shares of every class's images, for recognition of known classes; parts that the data declare
      stay as they are, and the others are taken from train, of classes with 3 images or more there (see `untested`);
    - "retrieval": identification of individuals: the images to identify are those of the parts val and test. Where the
      data declare none for val, it has one training image of each identity with `val_from` images or more and the share
      `val_unknown` of the unknown ones; and test, where they declare none for it, the same of what is left.

    `source` begins the messages.
    """

    source: str
    declared: str
    remedy: str
    val_fraction: float
    test_fraction: float
    unknown_label: str | None = None
    val_from: int = 3
    val_unknown: float = 1 / 3

    def __post_init__(self) -> None:
        for key in ("val_fraction", "test_fraction", "val_unknown"):
            _check_fraction(key, getattr(self, key))
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"dataset.val_fraction={self.val_fraction} and dataset.test_fraction={self.test_fraction} leave "
                "nothing to train on; their sum must be below 1"
            )
        if not isinstance(self.val_from, int) or self.val_from < 2:
            raise UserError(
                f"dataset.val_from={self.val_from!r}: give a whole number of 2 or more: one image is left to train on"
            )

    def split(self, name: str, items: Sequence[Item]) -> Split:
        """Raises `UserError` where `name` is unknown here, and where a part would be empty."""
        known_classes = [item for item in items if item.class_name not in ("", self.unknown_label)]
        if name == self.declared:
            return self._declared([item for item in items if item.class_name])
        if name == "test":
            return Split("test", {"train": (), "val": (), "test": tuple(sorted({i.class_name for i in known_classes}))})
        if name == "random":
            return self._random(item.class_name for item in known_classes)
        if name == "images":
            return self._images(known_classes)
        if name == "retrieval":
            return self._retrieval(items)
        known = ", ".join((self.declared, "random", "images", "retrieval", "test"))
        raise UserError(f"{self.source}: dataset.split={name} is unknown here; choose one of: {known}")

    def remarks(self, name: str, items: Sequence[Item]) -> list[str]:
        """What the split called `name` passes over, in a line each."""
        if name == "random" and any(item.part for item in items):
            return [f"the data's own train, val and test are ignored; dataset.split={self.declared} takes them"]
        return []

    def _declared(self, items: Sequence[Item]) -> Split:
        """With images where a class stands in several parts."""
        parts = {part: [item for item in items if item.part == part] for part in PARTS}
        self._check_none_empty(self.declared, parts, self.remedy)
        split = _by_image(self.declared, parts)
        counts = Counter(name for names in split.classes.values() for name in names)
        return split if max(counts.values()) > 1 else Split(self.declared, split.classes)

    def _random(self, class_names: Iterable[str]) -> Split:
        """Classes in the order of their hashes: the first for test, so that they do not depend on `val_fraction`."""
        names = sorted(set(class_names), key=_hash)
        if len(names) < len(PARTS):
            raise UserError(
                f"{self.source}: {len(names)} classes cannot be divided into train, val and test; "
                "add classes until there are at least 3"
            )
        n_test, n_val = _take(len(names), self.test_fraction, self.val_fraction)
        test, val, train = names[:n_test], names[n_test : n_test + n_val], names[n_test + n_val :]
        return Split("random", {"train": tuple(sorted(train)), "val": tuple(sorted(val)), "test": tuple(sorted(test))})

    def _images(self, items: Sequence[Item]) -> Split:
        declared = {item.part for item in items}
        shares = {p: f for p, f in (("test", self.test_fraction), ("val", self.val_fraction)) if p not in declared}
        chosen: dict[str, str] = {}
        for images in _by_class(item for item in items if item.part in ("", "train")).values():
            if len(images) >= LEAST:
                ordered = iter(images)
                for part, count in zip(shares, _take(len(images), *shares.values()), strict=True):
                    chosen |= {next(ordered).name: part for _ in range(count)}
        parts = _parts(items, chosen)
        self._check_none_empty("images", parts, f"classes need {LEAST} images to be divided; add images")
        known = {item.class_name for item in parts["train"]}
        foreign = sorted({item.class_name for part in PARTS for item in parts[part]} - known)
        if foreign:
            raise UserError(
                f"{self.source}: dataset.split=images is for classes that are trained on, and of "
                f"{len(foreign)} there are no training images ({', '.join(foreign[:3])}); "
                f"set dataset.split={self.declared} or random"
            )
        return _by_image("images", parts)

    def _retrieval(self, items: Sequence[Item]) -> Split:
        declared = {item.part for item in items}
        chosen: dict[str, str] = {}
        for name, images in _by_class(item for item in items if item.part in ("", "train")).items():
            unknown = name == self.unknown_label
            each = round(len(images) * self.val_unknown) if unknown else 1
            left = images
            for part in ("val", "test"):
                if part not in declared and (unknown or len(left) >= self.val_from):
                    chosen |= {item.name: part for item in left[:each]}
                    left = left[each:]
        parts = _parts(items, chosen)
        self._check_none_empty(
            "retrieval", parts, f"only identities of dataset.val_from={self.val_from} images or more give one away; "
            "add images, or set a smaller number"
        )  # fmt: skip
        return _by_image("retrieval", parts)

    def _check_none_empty(self, name: str, parts: dict[str, list[Item]], remedy: str) -> None:
        missing = [part for part in PARTS if not parts[part]]
        if missing:
            raise UserError(
                f"{self.source}: dataset.split={name} finds no images for {' and '.join(missing)}; {remedy}"
            )


def _check_fraction(key: str, fraction: float) -> None:
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise UserError(f"dataset.{key}={fraction!r}: give a share between 0 and 1, such as 0.2")


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _take(available: int, *fractions: float) -> list[int]:
    """How many to take for each share, at least one each and so that one is left for what follows each time."""
    counts: list[int] = []
    for position, fraction in enumerate(fractions):
        still_needed = len(fractions) - position  # this one's successors, and what is trained on
        most = available - sum(counts) - still_needed
        counts.append(min(max(1, round(available * fraction)), most))
    return counts


def _by_class(items: Iterable[Item]) -> dict[str, list[Item]]:
    """The items of each class in the order of the hashes of their names."""
    classes: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: _hash(item.name)):
        classes[item.class_name].append(item)
    return classes


def _parts(items: Iterable[Item], chosen: dict[str, str]) -> dict[str, list[Item]]:
    """Items by part: the chosen one, else the declared one, else train."""
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for item in items:
        parts[chosen.get(item.name, item.part or "train")].append(item)
    return parts


def _by_image(name: str, parts: dict[str, list[Item]]) -> Split:
    return Split(
        name,
        {part: tuple(sorted({item.class_name for item in parts[part]})) for part in PARTS},
        {part: tuple(item.name for item in parts[part]) for part in PARTS},
    )
