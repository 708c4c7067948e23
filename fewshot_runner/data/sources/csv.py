"""A CSV file that names images and their classes."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from fewshot_runner.data.decode import DECODER, decode
from fewshot_runner.data.division import check_fractions, declared_split, part_called, random_split, unknown_split
from fewshot_runner.data.source import Item, Source, Split
from fewshot_runner.data.sources.folder import existing
from fewshot_runner.data.table import read_table
from fewshot_runner.errors import UserError

_SHOWN = 3  # of many rows with the same fault


class Csv(Source):
    """One image a row: `image_column` its path below `images` (the CSV's own folder unless given), `label_column` its
    class, `split_column` its part (train, val or test), `group_column` its group.

    The file is UTF-8 with commas, semicolons or tabs, and a header. Splits: "column" (what `split_column` says) and
    "random" (whole classes by a hash of their names, in the shares `val_fraction` and `test_fraction`). `name`
    defaults to the file's.
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_column: str = "image",
        label_column: str = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        images: str | Path | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        name: str | None = None,
    ) -> None:
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        self._path = existing(path, key="dataset.path")
        if self._path.is_dir():
            raise UserError(f"dataset.path={self._path} is a folder; give a CSV file, or use dataset=folder")
        self._images = self._path.parent if images is None else existing(images, key="dataset.images")
        if not self._images.is_dir():
            raise UserError(f"dataset.images={self._images} is a file; give the folder that the image paths start from")
        self._columns = {
            key: column
            for key, column in (
                ("image_column", image_column),
                ("label_column", label_column),
                ("split_column", split_column),
                ("group_column", group_column),
            )
            if column is not None
        }
        self._val_fraction, self._test_fraction = val_fraction, test_fraction
        self.name = name or self._path.stem

    def identity(self) -> dict[str, Any]:
        """The decoder, and a digest of every row's entries and its image's size and time of change."""
        rows = []
        for item in self._items:
            status = self._file(item).stat()
            rows.append((item.name, item.class_name, item.group, item.part, status.st_size, status.st_mtime_ns))
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        return {"source": "csv", "decoder": DECODER, "images": len(rows), "files": digest}

    def items(self) -> Sequence[Item]:
        return self._items

    def image(self, index: int) -> Image.Image:
        path = self._file(self._items[index])
        return decode(path, str(path))

    def split(self, name: str) -> Split:
        if name == "column":
            if "split_column" not in self._columns:
                raise UserError(
                    f"{self._path}: dataset.split=column needs dataset.split_column, the column with train, val or "
                    "test; set it, or set dataset.split=random"
                )
            remedy = "add such rows, or set dataset.split=random"
            return declared_split(name, self._items, source=str(self._path), remedy=remedy)
        if name == "random":
            return random_split(
                (item.class_name for item in self._items),
                val_fraction=self._val_fraction,
                test_fraction=self._test_fraction,
                source=str(self._path),
            )
        raise unknown_split(name, ("column", "random"), source=str(self._path))

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        first: dict[str, tuple[int, Item]] = {}  # image -> the line that named it first, and what it said
        empty, unknown, conflicts = [], [], []
        for line, cells in read_table(self._path, self._columns):
            blank = [self._columns[key] for key, cell in cells.items() if not cell]
            part = part_called(cells["split_column"]) if "split_column" in cells else ""
            if blank:
                empty.append(f"line {line} has no {' and no '.join(blank)}")
            elif part is None:
                unknown.append(f"line {line} says {cells['split_column']!r}")
            else:
                image = Path(os.path.normpath(cells["image_column"])).as_posix()
                label, group = cells["label_column"], cells.get("group_column", "")
                item = Item(image, f"{group}/{label}" if group else label, group, part)
                before, known = first.setdefault(image, (line, item))
                if known != item:
                    conflicts.append(f"{image} is {_entry(known)} in line {before}, {_entry(item)} in line {line}")
        self._refuse("cells are empty", empty, "fill them or remove the rows")
        self._refuse("rows name no known part", unknown, "write train, val or test")
        self._refuse("rows contradict another", conflicts, "keep one row an image")
        if not first:
            raise UserError(f"{self._path} has a header but no rows; add one row an image")
        missing = [f"{item.name} (line {line})" for line, item in first.values() if not self._file(item).is_file()]
        self._refuse(
            f"images are not below {self._images}",
            missing,
            "add them, correct the paths, or set dataset.images to the folder that the paths start from",
        )
        return tuple(item for _, item in first.values())

    def _file(self, item: Item) -> Path:
        return self._images / item.name

    def _refuse(self, fault: str, rows: Sequence[str], remedy: str) -> None:
        if rows:
            more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            raise UserError(f"{self._path}: {len(rows)} {fault}: {'; '.join(rows[:_SHOWN])}{more}. Remedy: {remedy}")


def _entry(item: Item) -> str:
    return f"{item.class_name!r}" + (f" in {item.part}" if item.part else "")
