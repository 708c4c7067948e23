"""A folder of images, a sub-folder a class.

Three layouts, told apart by where the images lie: class/image, group/class/image (as Omniglot's alphabets), and either
of them below the folders train, val and test. A single folder around all of it, as in an archive of a folder, is passed
over.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fewshot_runner.data.decode import DECODER, how_to_read
from fewshot_runner.data.division import Division, part_called
from fewshot_runner.data.files import Files, Listing
from fewshot_runner.data.place import locate, open_files
from fewshot_runner.data.source import Item, Source, Split, normal
from fewshot_runner.data.table import nearest
from fewshot_runner.errors import UserError

_LAYOUTS = "class/image or group/class/image, either of them also below train, val and test folders"


def _wrapping(tree: Listing) -> str | None:
    """The folder in which all classes stand, if it means no part."""
    tops = {path.partition("/")[0] for path in (*tree.images, *filter(None, tree.folders))}
    wrapped = len(tops) == 1 and all(path.count("/") >= 2 for path in tree.images)
    return tops.pop() if wrapped and part_called(min(tops)) is None else None


def left_out(tree: Listing) -> list[str]:
    """A remark on the pictures there whose formats are not decoded."""
    return [f"left out: {_told(unread)}"] if (unread := tree.unread()) else []


def _told(unread: Sequence[str]) -> str:
    extensions = Counter(PurePosixPath(name).suffix.lower() for name in unread)
    counts = ", ".join(f"{count} {extension}" for extension, count in extensions.most_common())
    return f"pictures in formats that are not read ({counts}): {how_to_read(*extensions)}"


class Folder(Source):
    """The images below `path`, a folder or a zip archive, hidden and foreign files left out.

    Splits are those of `Division`; the one that the train, val and test folders tell is called "folders". `name`
    defaults to the folder's. Relative paths start from `root`, and `remedy` says where missing data may be had.
    """

    def __init__(
        self,
        *,
        path: str | Path,
        root: str | Path | None = None,
        unknown_label: str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        val_from: int = 3,
        val_unknown: float = 1 / 3,
        name: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self._place, self._inner = locate(path, key="dataset.path", root=root, remedy=remedy)
        self._root = open_files(self._place, self._inner, key="dataset.path").place
        self.name = name or Path(self._root).resolve().name.removesuffix(".zip")
        self.unknown_label = unknown_label and normal(unknown_label)
        self._division = Division(
            source=self._root,
            declared="folders",
            remedy="put class folders into train/, val/ and test/, or set dataset.split=random or images",
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            unknown_label=self.unknown_label,
            val_from=val_from,
            val_unknown=val_unknown,
        )

    def identity(self) -> dict[str, Any]:
        """The decoder, and a digest of every image's path and stamp; the splits are no part of it."""
        return {
            "source": "folder",
            "checksums": "size and crc-32",
            "decoder": DECODER,
            **self._tree.identity(),
            **self._files.identity(),
        }

    def items(self) -> Sequence[Item]:
        return self._items

    def image(self, index: int) -> Image.Image:
        return self._files.image(self._items[index].name)

    def checksum(self, index: int) -> int:
        return self._files.checksum(self._items[index].name)

    def split(self, name: str) -> Split:
        return self._division.split(name, self._items)

    def remarks(self, split: str) -> list[str]:
        return self._division.remarks(split, self._items) + self.left_out()

    def left_out(self) -> list[str]:
        return left_out(self._tree)

    @cached_property
    def _found(self) -> tuple[Files, Listing]:
        """From the folder on that holds all the others, as an archive of a folder has one at its top."""
        inner: str | None = self._inner
        while inner is not None:
            files = open_files(self._place, inner, key="dataset.path")
            tree = files.listing()
            top = _wrapping(tree)
            inner = None if top is None else f"{inner}/{top}".lstrip("/")
        if not tree.images and (unread := tree.unread()):
            raise UserError(f"{self._place}: {_told(unread)}")
        if not tree.images:
            raise UserError(f"{self._root} holds no images (.jpg, .png, .webp, .tif and so on); expected {_LAYOUTS}")
        return files, tree

    @property
    def _files(self) -> Files:
        return self._found[0]

    @property
    def _tree(self) -> Listing:
        return self._found[1]

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        paths = sorted(PurePosixPath(path).parts for path in self._tree.images)
        parted = self._has_parts(paths)
        example: dict[int, str] = {}  # folders between the part (or the root) and an image -> the first such image
        for path in paths:
            example.setdefault(len(path) - 1 - parted, "/".join(path))
        if len(example) > 1 or not set(example) <= {1, 2}:
            found = "; ".join(f"{path} ({depth} deep)" for depth, path in sorted(example.items()))
            raise UserError(f"{self._root}: images must all lie equally deep, as {_LAYOUTS}; found {found}")
        (depth,) = example
        self._check_every_class_has_images(paths, depth + parted)
        items = tuple(
            Item(
                name="/".join(path),
                class_name=normal("/".join(path[parted:-1])),
                group=normal(path[parted]) if depth == 2 else "",
                part=part_called(path[0]) or "" if parted else "",
            )
            for path in paths
        )
        labels = {item.class_name for item in items}
        if self.unknown_label is not None and self.unknown_label not in labels:
            raise UserError(
                f"{self._root}: dataset.unknown_label={self.unknown_label} is no class"
                f"{nearest(self.unknown_label, labels)}; correct it, or set it to null"
            )
        return items

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
                raise UserError(
                    f"{self._files.where(folder)} holds no image ({holds}); add images or remove the folder"
                )
