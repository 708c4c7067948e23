"""CSV files that name images and their classes: one file, or one a part, beside the images or in an archive with them.

A row says an image in `image_column` and its class in `label_column`; `image_path` makes the image's place of what the
row says, so that the usual layouts need no code: "{image}", "{part}/{image}", "{label}/{image}", "{image}.jpg".
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from fewshot_runner.data.decode import DECODER
from fewshot_runner.data.division import Division, part_called
from fewshot_runner.data.place import is_archive, locate, open_files
from fewshot_runner.data.source import Item, Source, Split, normal
from fewshot_runner.data.table import nearest, read_table
from fewshot_runner.data.template import PathTemplate
from fewshot_runner.errors import UserError

_SHOWN = 3  # of many rows with the same fault


class Csv(Source):
    """`path` is a CSV file, or with `tables` ({train: train.csv, test: test.csv}, say) a folder or zip archive.

    Parts are told by `tables` or by `split_column`; `group_column` tells an image's group. Images lie beside the table,
    or below `images`, a folder or an archive, at `image_path`, in which {part} stands for the key of `tables` or the
    cell of `split_column` as it is written. `unlabelled` is a folder beside the tables with images to be tested on that
    nobody has labelled. Relative paths start from `root`, and `remedy` says where missing data may be had.

    Files are UTF-8 with commas, semicolons or tabs, and a header. Splits are those of `Division`; the parts that the
    tables tell are the split `declared`, which unless named is "tables" or "column".
    """

    def __init__(
        self,
        *,
        path: str | Path,
        root: str | Path | None = None,
        tables: Mapping[str, str] | None = None,
        image_column: str = "image",
        label_column: str = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        images: str | Path | None = None,
        image_path: str = "{image}",
        unlabelled: str | None = None,
        unknown_label: str | None = None,
        declared: str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        val_from: int = 3,
        val_unknown: float = 1 / 3,
        name: str | None = None,
        remedy: str | None = None,
    ) -> None:
        place, inner = locate(path, key="dataset.path", root=root, remedy=remedy)
        self._path = str(Path(place, inner))
        self._tables = self._told_tables(tables, split_column, unlabelled)
        if self._tables:
            self._files = open_files(place, inner, key="dataset.path")
        else:
            if place.is_dir() or (is_archive(place) and not inner):
                kind = "a folder" if place.is_dir() else "an archive"
                raise UserError(
                    f"dataset.path={self._path} is {kind}; give a CSV file, or name those in it with "
                    "dataset.tables, or use dataset=folder"
                )
            table = Path(self._path)
            self._files = open_files(place if inner else place.parent, str(Path(inner).parent), key="dataset.path")
            self._tables = {"": table.name}
        if images is None:
            self._images = self._files
        else:
            self._images = open_files(*locate(images, key="dataset.images", root=root), key="dataset.images")
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
        unsaid = {"part": "there are no dataset.tables and no dataset.split_column"} if self._has_no_parts() else {}
        unsaid |= {} if group_column else {"group": "there is no dataset.group_column"}
        fields = [name for name in ("image", "label", "part", "group") if name not in unsaid]
        self._image_path = PathTemplate(
            image_path, key="dataset.image_path", fields=fields, required="image", unsaid=unsaid
        )
        self._unlabelled = unlabelled
        self.unknown_label = unknown_label and normal(unknown_label)
        self.name = name or Path(self._path).stem
        by_tables = "" not in self._tables
        self._division = Division(
            source=self._path,
            declared=declared or ("tables" if by_tables else "column"),
            remedy=f"add such {'tables' if by_tables else 'rows'}, or set dataset.split=random or images",
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            unknown_label=self.unknown_label,
            val_from=val_from,
            val_unknown=val_unknown,
        )

    def _told_tables(
        self, tables: Mapping[str, str] | None, split_column: str | None, unlabelled: str | None
    ) -> dict[str, str]:
        """`tables`, checked; empty where they are not given."""
        told = {str(key): str(table) for key, table in (tables or {}).items() if table is not None}
        parts = [part_called(key) for key in told]
        if None in parts or len(set(parts)) < len(parts):
            raise UserError(f"dataset.tables={told}: name each of train, val and test once at most")
        if told and split_column:
            raise UserError(
                f"dataset.tables={told} and dataset.split_column={split_column} both tell the parts; leave one out"
            )
        if unlabelled and "test" in parts:
            raise UserError(
                f"dataset.unlabelled={unlabelled}: the test images have labels already; set it to null, or leave "
                "dataset.tables.test out"
            )
        return told

    def _has_no_parts(self) -> bool:
        return "" in self._tables and "split_column" not in self._columns

    def identity(self) -> dict[str, Any]:
        """The decoder, and a digest of every row's entries and its image's stamp."""
        rows = [
            (item.name, item.class_name, item.group, item.part, *(self._images.stamp(item.name) or ()))
            for item in self._items
        ]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        return {
            "source": "csv",
            "checksums": "size and crc-32",
            "decoder": DECODER,
            "images": len(rows),
            "files": digest,
            **self._images.identity(),
        }

    def items(self) -> Sequence[Item]:
        return self._items

    def remarks(self, split: str) -> list[str]:
        return self._division.remarks(split, self._items)

    def image(self, index: int) -> Image.Image:
        return self._images.image(self._items[index].name)

    def checksum(self, index: int) -> int:
        return self._images.checksum(self._items[index].name)

    def split(self, name: str) -> Split:
        if name == self._division.declared and self._has_no_parts():
            raise UserError(
                f"{self._path}: dataset.split={name} needs dataset.split_column, the column with train, val or test, "
                "or dataset.tables; set one, or set dataset.split=random or images"
            )
        return self._division.split(name, self._items)

    def _rows(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Of each row its place in words, its part as it is written, and its cells."""
        for part, table in self._tables.items():
            content = self._files.read(table)
            for line, cells in read_table(content, self._files.where(table), self._columns):
                where = f"line {line} of {table}" if len(self._tables) > 1 else f"line {line}"
                yield where, part or cells.get("split_column", ""), cells

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        first: dict[str, tuple[str, Item]] = {}  # image -> the row that named it first, and what it said
        groups: dict[str, str] = {}  # class -> its group: "a" with "b/c" is not "a/b" with "c", but is called so
        empty, unknown, conflicts, ambiguous = [], [], [], []
        labels = set()
        for where, written_part, cells in self._rows():
            blank = [self._columns[key] for key, cell in cells.items() if not cell]
            part = "" if self._has_no_parts() else part_called(written_part)
            if blank:
                empty.append(f"{where} has no {' and no '.join(blank)}")
            elif part is None:
                unknown.append(f"{where} says {written_part!r}")
            else:
                item = self._item(cells, part, written_part)
                labels.add(normal(cells["label_column"]))
                group = groups.setdefault(item.class_name, item.group)
                if group != item.group:
                    ambiguous.append(f"{item.class_name!r} is of {group!r} and of {item.group!r} ({where})")
                before, known = first.setdefault(item.name, (where, item))
                if known != item:
                    conflicts.append(f"{item.name} is {_entry(known)} in {before}, {_entry(item)} in {where}")
        self._refuse("cells are empty", empty, "fill them or remove the rows")
        self._refuse("rows name no known part", unknown, "write train, val or test, or set dataset.split_column=null")
        self._refuse("rows contradict another", conflicts, "keep one row an image")
        self._refuse("rows give a class another group", ambiguous, "rename the label or the group")
        if not first:
            raise UserError(f"{self._path} has a header but no rows; add one row an image")
        missing = [f"{name} ({where})" for name, (where, _) in first.items() if self._images.stamp(name) is None]
        self._refuse(
            f"images are not below {self._images.place}",
            missing,
            "add them, correct the paths, or set dataset.image_path (as in {part}/{image}) or dataset.images, "
            "the folder that the paths start from",
        )
        if self.unknown_label is not None and self.unknown_label not in labels:
            raise UserError(
                f"{self._path}: dataset.unknown_label={self.unknown_label} is no label"
                f"{nearest(self.unknown_label, labels)}; correct it, or set it to null"
            )
        return (*(item for _, item in first.values()), *self._unlabelled_items(first))

    def _item(self, cells: Mapping[str, str], part: str, written_part: str) -> Item:
        label, group = normal(cells["label_column"]), normal(cells.get("group_column", ""))
        said = {"image": cells["image_column"], "label": label, "group": group, "part": written_part}
        if label == self.unknown_label:
            group = ""  # strangers are one class, whatever their groups
        name = self._spelled(self._image_path.fill(said))
        return Item(name, f"{group}/{label}" if group else label, group, part)

    def _spelled(self, name: str) -> str:
        """As the image's file is: a table may come from Windows, and files from a Mac, which spells accents apart."""
        if self._images.stamp(name) is not None:
            return name
        slashes = name.replace("\\", "/")
        spellings = (unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))
        return next((each for each in (slashes, *spellings) if self._images.stamp(each) is not None), name)

    def _unlabelled_items(self, labelled: Mapping[str, Any]) -> list[Item]:
        if self._unlabelled is None:
            return []
        names = sorted(self._images.listing(self._unlabelled).images)
        if not names:
            raise UserError(
                f"dataset.unlabelled={self._unlabelled}: {self._images.where(self._unlabelled)} holds no images"
            )
        self._refuse(
            f"images of dataset.unlabelled={self._unlabelled} have labels",
            [name for name in names if name in labelled],
            "name a folder of other images",
        )
        return [Item(name, "", "", "test") for name in names]

    def _refuse(self, fault: str, rows: Sequence[str], remedy: str) -> None:
        if rows:
            more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            raise UserError(f"{self._path}: {len(rows)} {fault}: {'; '.join(rows[:_SHOWN])}{more}. Remedy: {remedy}")


def _entry(item: Item) -> str:
    return f"{item.class_name!r}" + (f" in {item.part}" if item.part else "")
