"""How a user's own data are divided into train, val and test: as the items say, or by a fixed hash of class names."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from fewshot_runner.data.source import PARTS, Item, Split
from fewshot_runner.errors import UserError

_PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def part_called(name: str) -> str | None:
    """The part that a folder or a cell called `name` means, in any case of letters; None where it means no part."""
    return _PART_NAMES.get(name.strip().casefold())


def check_fractions(*, val_fraction: float, test_fraction: float) -> None:
    """Raises `UserError` unless both are above 0 and leave something to train on."""
    for key, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise UserError(f"dataset.{key}={fraction!r}: give a share of the classes between 0 and 1, such as 0.2")
    if val_fraction + test_fraction >= 1:
        raise UserError(
            f"dataset.val_fraction={val_fraction} and dataset.test_fraction={test_fraction} leave no classes "
            "to train on; their sum must be below 1"
        )


def random_split(class_names: Iterable[str], *, val_fraction: float, test_fraction: float, source: str) -> Split:
    """The split "random": whole classes, at least one a part, the same on every machine for the same names.

    Classes stand in the order of the SHA-256 of their names; the first are for test, the next for val. So the test
    classes do not depend on `val_fraction`. Raises `UserError` that begins with `source` below three classes.
    """
    names = sorted(set(class_names), key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
    if len(names) < len(PARTS):
        raise UserError(
            f"{source}: {len(names)} classes cannot be divided into train, val and test; "
            "add classes until there are at least 3"
        )
    n_test = min(max(1, round(len(names) * test_fraction)), len(names) - 2)
    n_val = min(max(1, round(len(names) * val_fraction)), len(names) - 1 - n_test)
    test, val, train = names[:n_test], names[n_test : n_test + n_val], names[n_test + n_val :]
    return Split("random", {"train": tuple(sorted(train)), "val": tuple(sorted(val)), "test": tuple(sorted(test))})


def declared_split(name: str, items: Sequence[Item], *, source: str, remedy: str) -> Split:
    """The split that the items themselves declare by `part`; with images where a class stands in several parts.

    Raises `UserError` made of `source`, the parts without images, and `remedy`.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    images: dict[str, list[str]] = defaultdict(list)
    for item in items:
        classes[item.part].add(item.class_name)
        images[item.part].append(item.name)
    missing = [part for part in PARTS if part not in classes]
    if missing:
        raise UserError(f"{source}: dataset.split={name} finds no images for {' and '.join(missing)}; {remedy}")
    shared = sum(len(classes[part]) for part in PARTS) > len(set().union(*classes.values()))
    return Split(
        name,
        {part: tuple(sorted(classes[part])) for part in PARTS},
        {part: tuple(images[part]) for part in PARTS} if shared else None,
    )


def unknown_split(name: str, known: Sequence[str], *, source: str) -> UserError:
    """The error for a division that a source does not have."""
    return UserError(f"{source}: dataset.split={name} is unknown here; choose one of: {', '.join(known)}")
