"""Archives with members left out, added or damaged."""

import re
import zipfile
from pathlib import Path


def rewrite(archive: Path, *, without: str = "no name", add: dict[str, bytes] | None = None) -> None:
    """The archive anew, less the members whose names match `without`."""
    with zipfile.ZipFile(archive) as file:
        members = {name: file.read(name) for name in file.namelist() if not re.search(without, name)}
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in {**members, **(add or {})}.items():
            file.writestr(name, content)


def damage_member(archive: Path, name: str) -> None:
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo(name)
        start = member.header_offset + 30 + len(name) + 40
    content = bytearray(archive.read_bytes())
    content[start : start + 20] = bytes(20)
    archive.write_bytes(content)
