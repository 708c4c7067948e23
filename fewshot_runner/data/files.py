"""The files that images and tables are read from: the contract, and files below a folder.

A file is called by its path from there, with slashes.
"""

import hashlib
import json
import os
import stat
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fewshot_runner.data.decode import EXTENSIONS, UNREAD, decode
from fewshot_runner.errors import UserError

# Of a file, size in bytes, times in ns of a change in its content and of any change, and inode: an editor or an archive
# may set the first time back, and files that change places keep both. Of a member of an archive, size and CRC-32.
Stamp = tuple[int, ...]


@dataclass
class Listing:
    """What lies somewhere, hidden and foreign files left out of `images`."""

    images: dict[str, Stamp] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)  # folder -> its files that are no images

    def unread(self) -> list[str]:
        """Pictures in formats that are not decoded."""
        files = (str(PurePosixPath(folder, name)) for folder, names in self.folders.items() for name in names)
        return sorted(name for name in files if PurePosixPath(name).suffix.lower() in UNREAD)

    def identity(self) -> dict[str, Any]:
        """How many images there are, and a digest of their names and stamps."""
        files = sorted((name, *stamp) for name, stamp in self.images.items())
        return {"images": len(files), "files": hashlib.sha256(json.dumps(files).encode()).hexdigest()}


class Files(ABC):
    """The files at `place`, a folder or an archive."""

    place: str

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What is to be known of the place as a whole, besides the stamps of its files."""

    @abstractmethod
    def stamp(self, name: str) -> Stamp | None:
        """What changes when the file does; None where there is no such file."""

    @abstractmethod
    def checksum(self, name: str) -> int:
        """Size and CRC-32 in 64 bits, as `checksum_of` has them: equal for files of equal content.

        Raises `UserError` as `read` does.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file; raises `UserError` that names the place and the file where it cannot be read."""

    @abstractmethod
    def listing(self, below: str = "") -> Listing:
        """All images and folders, or those in the folder `below`."""

    def where(self, name: str) -> str:
        """How messages call a file."""
        return str(Path(self.place, name))

    def image(self, name: str) -> Image.Image:
        return decode(self.read(name), self.where(name))


class Directory(Files):
    """The files below a folder. Links are followed, but into no folder that they stand in."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.place = str(root)

    def identity(self) -> dict[str, Any]:
        return {}

    def stamp(self, name: str) -> Stamp | None:
        try:
            status = (self._root / name).stat()
        except OSError:
            return None
        return stamp_of(status) if stat.S_ISREG(status.st_mode) else None

    def checksum(self, name: str) -> int:
        content = self.read(name)
        return checksum_of(len(content), zlib.crc32(content))

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.where(name)}: the file cannot be read ({error.strerror}); check its path and its permissions"
            ) from error

    def listing(self, below: str = "") -> Listing:
        found = Listing()
        if (self._root / below).is_dir():
            self._walk(self._root / below, below, (), found)
        return found

    def _walk(self, folder: Path, name: str, above: tuple[tuple[int, int], ...], found: Listing) -> None:
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                return
            foreign = found.folders.setdefault(name, [])
            with os.scandir(folder) as entries:
                for entry in entries:
                    inner = f"{name}/{entry.name}" if name else entry.name
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        self._walk(folder / entry.name, inner, (*above, here), found)
                    elif is_image(entry.name) and stat.S_ISREG((file := entry.stat()).st_mode):
                        found.images[inner] = stamp_of(file)
                    else:
                        foreign.append(entry.name)
        except OSError as error:
            raise UserError(
                f"{error.filename or folder} cannot be read ({error.strerror}); mend its permissions or remove it"
            ) from error


def checksum_of(size: int, crc: int) -> int:
    return size << 32 | crc


def stamp_of(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_image(name: str) -> bool:
    _, dot, extension = name.rpartition(".")
    return dot + extension.lower() in EXTENSIONS


def is_hidden(path: str) -> bool:
    """Whether a file is hidden, or any folder that it lies in."""
    path = f"/{path}/"
    return "/." in path or "/__MACOSX/" in path
