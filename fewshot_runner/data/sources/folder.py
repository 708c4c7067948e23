"""A folder of images, a sub-folder a class.

Three layouts, told apart by where the images lie: class/image, group/class/image (as Omniglot's alphabets), and either
of them below the folders train, val and test.
"""

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fewshot_runner.data.decode import DECODER, EXTENSIONS, decode
from fewshot_runner.data.division import check_fractions, declared_split, part_called, random_split, unknown_split
from fewshot_runner.data.source import Item, Source, Split
from fewshot_runner.errors import UserError

_LAYOUTS = "class/image or group/class/image, either of them also below train, val and test folders"


@dataclass
class _Tree:
    """What a walk has found; all paths are relative to the root, with slashes."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)  # image -> size in bytes, time of change in ns
    folders: dict[str, list[str]] = field(default_factory=dict)  # folder -> its files that are no images


class Folder(Source):
    """The images below `path`, hidden and foreign files left out.

    Splits: "folders" (the train, val and test folders) and "random" (whole classes by a hash of their names, in the
    shares `val_fraction` and `test_fraction`). `name` defaults to the folder's.
    """

    def __init__(
        self, *, path: str | Path, name: str | None = None, val_fraction: float = 0.2, test_fraction: float = 0.2
    ) -> None:
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        self._root = existing(path, key="dataset.path")
        if not self._root.is_dir():
            hint = "unpack it and give the folder" if self._root.suffix == ".zip" else "give a folder of images"
            raise UserError(f"dataset.path={self._root} is a file; {hint}")
        self.name = name or self._root.resolve().name
        self._val_fraction, self._test_fraction = val_fraction, test_fraction

    def identity(self) -> dict[str, Any]:
        """The decoder, and a digest of every image's path, size and time of change; the splits are no part of it."""
        files = sorted((path, *stamp) for path, stamp in self._tree.files.items())
        digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        return {"source": "folder", "decoder": DECODER, "images": len(files), "files": digest}

    def items(self) -> Sequence[Item]:
        return self._items

    def image(self, index: int) -> Image.Image:
        path = self._root / self._items[index].name
        return decode(path, str(path))

    def split(self, name: str) -> Split:
        if name == "folders":
            remedy = "put class folders into train/, val/ and test/, or set dataset.split=random"
            return declared_split(name, self._items, source=str(self._root), remedy=remedy)
        if name == "random":
            return random_split(
                (item.class_name for item in self._items),
                val_fraction=self._val_fraction,
                test_fraction=self._test_fraction,
                source=str(self._root),
            )
        raise unknown_split(name, ("folders", "random"), source=str(self._root))

    @cached_property
    def _tree(self) -> _Tree:
        tree = _Tree()
        _walk(self._root, "", (), tree)
        if not tree.files:
            raise UserError(f"{self._root} holds no images (.jpg, .png, .webp, .tif and so on); expected {_LAYOUTS}")
        return tree

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        paths = sorted(PurePosixPath(path).parts for path in self._tree.files)
        parted = self._has_parts(paths)
        example: dict[int, str] = {}  # folders between the part (or the root) and an image -> the first such image
        for path in paths:
            example.setdefault(len(path) - 1 - parted, "/".join(path))
        if len(example) > 1 or not set(example) <= {1, 2}:
            found = "; ".join(f"{path} ({depth} deep)" for depth, path in sorted(example.items()))
            raise UserError(f"{self._root}: images must all lie equally deep, as {_LAYOUTS}; found {found}")
        (depth,) = example
        self._check_every_class_has_images(paths, depth + parted)
        return tuple(
            Item(
                name="/".join(path),
                class_name="/".join(path[parted:-1]),
                group=path[parted] if depth == 2 else "",
                part=part_called(path[0]) or "" if parted else "",
            )
            for path in paths
        )

    def _has_parts(self, paths: Sequence[tuple[str, ...]]) -> bool:
        tops = sorted({path[0] for path in paths if len(path) > 1})
        parts = {top: part_called(top) for top in tops}
        named = [top for top in tops if parts[top]]
        if tops and len(named) == len(tops):
            if len(set(parts.values())) < len(tops):
                raise UserError(f"{self._root}: of the folders {', '.join(tops)} two mean the same part; join them")
            return True
        if any(parts[path[0]] == "train" for path in paths if len(path) > 2):
            others = ", ".join(top for top in tops if not parts[top])
            raise UserError(
                f"{self._root} has {', '.join(named)} beside folders of another kind ({others}); "
                "move those into the parts or elsewhere"
            )
        return False

    def _check_every_class_has_images(self, paths: Sequence[tuple[str, ...]], class_depth: int) -> None:
        full = {"/".join(path[:end]) for path in paths for end in range(1, len(path))}
        parents = {folder.rpartition("/")[0] for folder in self._tree.folders}
        for folder, foreign in sorted(self._tree.folders.items()):
            depth = folder.count("/") + 1
            is_class = depth == class_depth or (depth < class_depth and folder not in parents)
            if folder and is_class and folder not in full:
                holds = f"only {', '.join(sorted(foreign)[:3])}" if foreign else "nothing"
                raise UserError(f"{self._root / folder} holds no image ({holds}); add images or remove the folder")


def existing(path: str | Path, *, key: str) -> Path:
    """`path` with ~ expanded; raises `UserError` that names `key` and the nearest folder that does exist."""
    path = Path(path).expanduser()
    exists = os.path.exists  # Path.exists raises where a parent may not be entered
    if exists(path):
        return path
    nearest = next(parent for parent in path.absolute().parents if exists(parent))
    raise UserError(f"{key}={path} does not exist; {nearest} is the nearest folder that does")


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS


def _walk(folder: Path, name: str, above: tuple[tuple[int, int], ...], tree: _Tree) -> None:
    """Enters all that lies below `folder` into `tree`; follows links, but into no folder that it stands in."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        foreign = tree.folders.setdefault(name, [])
        with os.scandir(folder) as entries:
            for entry in entries:
                inner = f"{name}/{entry.name}" if name else entry.name
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    _walk(folder / entry.name, inner, (*above, here), tree)
                elif _is_image(entry.name) and stat.S_ISREG((found := entry.stat()).st_mode):
                    tree.files[inner] = (found.st_size, found.st_mtime_ns)
                else:
                    foreign.append(entry.name)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be read ({error.strerror}); mend its permissions or remove it"
        ) from error
