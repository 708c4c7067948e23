"""The store: every image of a source decoded once, at the run's resolution, into one memory-mapped file on disk.

A store is a folder of three files below the cache folder, named after a key that covers the source's identity and
every ingest option. It is built beside its place and renamed into it, under a lock, so that it is whole or absent.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fewshot_runner import atomic
from fewshot_runner.data.layout import Ragged, Square
from fewshot_runner.data.source import Source
from fewshot_runner.errors import UserError

FORMAT = 1
INDEX, META = "index.npz", "meta.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Store:
    """What was ingested: uint8 pixels and, per image, its name and class number.

    `pixels` are (I, C, H, W) in a `Square` layout; in a `Ragged` one they are flat, with `sizes` (I, 2) and `offsets`
    (I + 1,). `labels` (I,) number `class_names` (C,); `class_groups` (C,) gives each class's group name, "" without
    groups. `checksums` (I,) are those of the files, where these are a user's and may change.
    """

    pixels: np.ndarray
    image_names: np.ndarray
    labels: np.ndarray
    class_names: np.ndarray
    class_groups: np.ndarray
    path: Path
    sizes: np.ndarray | None = None
    offsets: np.ndarray | None = None
    checksums: np.ndarray | None = None


ARRAYS = {field.name for field in fields(Store)}


def open_store(
    source: Source,
    *,
    image_size: int,
    channels: int,
    cache: Path,
    shorter_side: int | None = None,
    resample: str = "bilinear",
    progress: Progress | None = None,
) -> Store:
    """Opens the store of `source`, and builds it first where it is absent or damaged.

    It is `Square` at `image_size`, or with `shorter_side` `Ragged`, whatever the size of the views cut out of it.

    Any number of processes may call this at once: one builds, the others wait for it. `progress` is called with
    (images done, images in all) while building.
    """
    layout: Square | Ragged = Square(image_size, channels, resample)
    if shorter_side is not None:
        layout = Ragged(shorter_side, channels, resample)
    path, options = place_of(source, layout, cache)
    if (store := _load(path, layout)) is not None:
        return store
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{path.name}.lock"):
            if (store := _load(path, layout)) is None:
                build(source, path, layout, options, progress)
                store = _load(path, layout)
    except OSError as error:
        raise UserError(
            f"dataset.cache={cache}: the decoded images cannot be kept there ({error}); "
            "set dataset.cache or FSL_CACHE to a folder with free space that you may write to"
        ) from error
    assert store is not None, f"{path} was built and does not verify"
    return store


def place_of(source: Source, layout: Square | Ragged, cache: Path) -> tuple[Path, dict[str, Any]]:
    """The folder where the store of `source` belongs, and all the options that its name covers."""
    options = {"format": FORMAT, **layout.options(), "source": source.identity()}
    key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:20]
    return cache / f"{source.name}-{layout.label}-{key}", options


def build(
    source: Source, path: Path, layout: Square | Ragged, options: dict[str, Any], progress: Progress | None = None
) -> None:
    """Writes the store at `path`, where `place_of` says that it belongs; nobody else may be at it."""
    items = source.items()
    building = path.with_name(f".{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # left by a build that was killed: the lock is ours
    building.mkdir()
    try:

        def tell(done: int) -> None:
            if progress is not None and (done % 500 == 0 or done == len(items)):
                progress(done, len(items))

        shapes = layout.write(building / layout.file, source, len(items), tell)
        classes = sorted({(item.group, item.class_name) for item in items})
        number = {class_name: index for index, (_, class_name) in enumerate(classes)}
        checksums = [source.checksum(index) for index in range(len(items))]
        if None not in checksums:
            shapes["checksums"] = np.array(checksums, dtype=np.uint64)
        np.savez(
            building / INDEX,
            image_names=np.array([item.name for item in items]),
            labels=np.array([number[item.class_name] for item in items], dtype=np.int64),
            class_names=np.array([class_name for _, class_name in classes]),
            class_groups=np.array([group for group, _ in classes]),
            **shapes,
        )
        for name in (layout.file, INDEX):
            with open(building / name, "rb+") as file:
                os.fsync(file.fileno())
        files = {name: {**_stamp(building / name), "sha256": _sha256(building / name)} for name in (layout.file, INDEX)}
        atomic.write_json(building / META, {"options": options, "files": files})
        if path.exists():
            shutil.rmtree(path)
        building.rename(path)
        atomic.fsync_folder(path.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _load(path: Path, layout: Square | Ragged) -> Store | None:
    """The store at `path`, or None where it is absent, unfinished or damaged."""
    try:
        files = json.loads((path / META).read_text())["files"]
        if not all(_intact(path / name, files[name]) for name in (layout.file, INDEX)):
            return None
        with np.load(path / INDEX, allow_pickle=False) as index:
            arrays = {name: index[name] for name in ARRAYS if name in index}  # earlier versions kept others as well
        return Store(pixels=layout.read(path / layout.file, arrays), path=path, **arrays)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _intact(path: Path, recorded: dict[str, Any]) -> bool:
    """Whether a file is as it was written: unchanged stamp, or else the recorded digest (a copied cache, say).

    Where the digest is right, the file gets its recorded time, so that it is read whole once.
    """
    stamp = _stamp(path)
    if stamp["size"] != recorded["size"]:
        return False
    if stamp["mtime_ns"] != recorded["mtime_ns"]:
        if _sha256(path) != recorded["sha256"]:
            return False
        with suppress(OSError):  # of another user's cache
            os.utime(path, ns=(recorded["mtime_ns"], recorded["mtime_ns"]))
    return True


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
