"""Files inside a zip archive, read as if they lay in a folder.

Nothing is ever unpacked, so members with absolute paths or with `..` in them can do no harm. A damaged member, as its
CRC-32 tells, is refused when it is read.
"""

import zipfile
from pathlib import Path
from typing import Any

from fewshot_runner.data.files import Files, Listing, Stamp, checksum_of, is_hidden, is_image
from fewshot_runner.errors import UserError


class Archive(Files):
    """The members of the zip archive `path`, or those below its folder `inner`. Of equal names the last counts.

    `remedy` is what messages say of a damaged archive.
    """

    def __init__(self, path: Path, inner: str = "", *, remedy: str = "fetch or pack the archive again") -> None:
        inner = "" if inner == "." else inner.strip("/")
        self.place = str(Path(path, inner))
        self._path = path
        self._remedy = remedy
        try:
            self._status = path.stat()
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory of members raises BadZipFile, OSError, ValueError and others
            raise UserError(f"{path}: not a readable zip file ({error}); {remedy}") from error
        start = f"{inner}/" if inner else ""
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._folders: set[str] = set()  # those that have an entry of their own
        for member in self._zip.infolist():
            name = _plain(member.filename)
            if not name.startswith(start):
                continue
            if name.endswith("/"):
                self._folders.add(name[len(start) : -1])
            else:
                self._members[name[len(start) :]] = member
        if inner and not self._members:
            raise UserError(f"{self.place}: {path.name} has no such folder; its entries begin with {self._beginning()}")

    def _beginning(self) -> str:
        tops = sorted({name.lstrip("/").partition("/")[0] for name in self._zip.namelist()})
        return ", ".join(tops[:5]) + (", ..." if len(tops) > 5 else "")

    def identity(self) -> dict[str, Any]:
        """Size and time of change of the archive."""
        return {"archive": {"size": self._status.st_size, "mtime_ns": self._status.st_mtime_ns}}

    def stamp(self, name: str) -> Stamp | None:
        member = self._members.get(name)
        return None if member is None else (member.file_size, member.CRC)

    def checksum(self, name: str) -> int:
        """As the archive says; a member of another content is refused when it is read."""
        member = self._member(name)
        return checksum_of(member.file_size, member.CRC)

    def read(self, name: str) -> bytes:
        member = self._member(name)
        try:
            return self._zip.read(member)
        except RuntimeError as error:  # a password is missing, or the compression is not known
            raise UserError(f"{self._path}: {name} cannot be read ({error}); pack the archive again") from error
        except Exception as error:  # on damaged members decompressors raise anything
            raise UserError(f"{self._path}: {name} is damaged ({error}); {self._remedy}") from error

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise UserError(
                f"{self.where(name)}: {self._path.name} has no such file; check the name, or {self._remedy}"
            )
        return self._members[name]

    def listing(self, below: str = "") -> Listing:
        found = Listing()
        start = f"{below.strip('/')}/" if below else ""
        for name in [*self._members, *(f"{folder}/" for folder in self._folders)]:
            if not name.startswith(start) or is_hidden(name):
                continue
            folder, _, file = name.rpartition("/")
            above = folder
            while above not in found.folders:  # those above one that is there are there as well, up to ""
                found.folders[above] = []
                above = above.rpartition("/")[0]
            if is_image(file):
                found.images[name] = (self._members[name].file_size, self._members[name].CRC)
            elif file:
                found.folders[folder].append(file)
        return found


def _plain(name: str) -> str:
    """A member's path from the archive's top, a folder's with a slash at its end: some programs write backslashes, or
    let names begin with "/" or "./".
    """
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".")) + ("" if parts[-1] else "/")
