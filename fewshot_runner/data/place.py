"""Where data lie: what a path means that a user gave, a file, a folder, an archive, or something inside an archive."""

import os
from pathlib import Path

from fewshot_runner.data.archive import Archive
from fewshot_runner.data.files import Directory, Files
from fewshot_runner.errors import Absent, UserError


def locate(
    path: str | Path, *, key: str, root: str | Path | None = None, remedy: str | None = None
) -> tuple[Path, str]:
    """What `path` means: a file or folder that exists and "", or a zip archive and a path inside it.

    Relative paths start from `root`; ~ is expanded; where `path` does not exist, `path`.zip will do; a path may lead
    on into an archive, as in pictures.zip/train. Raises `Absent` that names `key` and says where it looked;
    `remedy` says where the data may be had.
    """
    if not str(path):
        raise Absent(f"{key} is empty; {remedy or 'give a file or folder'}")
    path = Path(root or "").expanduser() / Path(path).expanduser()
    exists = os.path.exists  # Path.exists raises where a parent may not be entered
    if exists(path):
        return path, ""
    archive = path.with_name(f"{path.name}.zip")
    if exists(archive):
        return archive, ""
    nearest = next(parent for parent in path.absolute().parents if exists(parent))
    if is_archive(nearest):
        return nearest, path.absolute().relative_to(nearest).as_posix()
    if root is None:
        hint = f"; {remedy}" if remedy else ""
        raise Absent(f"{key}={path} does not exist; {nearest} is the nearest folder that does{hint}")
    raise Absent(
        f"dataset.root={root}: neither {path} nor {archive.name} is there; {remedy or 'put it there'}, or set "
        "dataset.root or FSL_DATA to the folder that holds it"
    )


def open_files(place: Path, inner: str = "", *, key: str) -> Files:
    """The files at what `locate` has found; raises `UserError` that names `key` where that is neither of the two."""
    if is_archive(place):
        return Archive(place, inner)
    if not (place / inner).is_dir():
        raise UserError(f"{key}={place / inner} is a file; give a folder or a zip archive")
    return Directory(place / inner)


def is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()
