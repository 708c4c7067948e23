"""A hash of the user's own packages: when their code changes, a sweep no longer takes an earlier run of the same config
for this one.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

CODE = (".py", ".pyc", ".so", ".pyd")


def code_of(packages: Sequence[str]) -> str | None:
    """Sixteen hexadecimal digits that tell what these packages hold, as this process has them; None of no packages.

    Python imports a package once, so what is edited later is of the next process.
    """
    if not packages:
        return None
    digests = [_digest(package.partition(".")[0]) for package in packages]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


@cache
def _digest(package: str) -> str:
    digest = hashlib.sha256(package.encode())
    for place in _places(package):
        files = sorted(file for file in place.rglob("*") if file.suffix in CODE) if place.is_dir() else [place]
        for file in files:
            if "__pycache__" not in file.parts and file.is_file():
                content, name = file.read_bytes(), file.relative_to(place).as_posix()
                digest.update(f" {name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _places(package: str) -> Iterator[Path]:
    """Its folders, or its file; of one in an archive, the archive. What is part of Python itself has none."""
    try:
        spec = find_spec(package)
    except ValueError:  # __main__: the user's own program
        spec = None
    own = getattr(sys.modules.get(package), "__file__", None)
    told = (spec.submodule_search_locations or [spec.origin]) if spec else [own]
    for place in (Path(each) for each in told if each):
        yield from [existing for existing in (place, *place.parents[:-1]) if existing.exists()][:1]
