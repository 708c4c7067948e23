"""Four alphabets of scribbles in the zip files of Omniglot, so that tests of its layout need no data."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# two alphabets of each set, with the number of their characters, as they are called and counted in Omniglot
SUBSET = {"images_background": {"Greek": 24, "Tagalog": 17}, "images_evaluation": {"Keble": 26, "Angelic": 20}}
DRAWERS = 20


def characters_of(part: str) -> list[str]:
    """As in "Greek/character01"."""
    return [f"{alphabet}/character{n:02d}" for alphabet, count in SUBSET[part].items() for n in range(1, count + 1)]


def write_archives(folder: Path) -> None:
    """Members are named, packed and of the size and mode of the real ones."""
    folder.mkdir()
    for part in SUBSET:
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for number, character in enumerate(characters_of(part)):
                for drawer in range(1, DRAWERS + 1):
                    name = f"{part}/{character}/{number:04d}_{drawer:02d}.png"
                    archive.writestr(name, scribble(name), zipfile.ZIP_DEFLATED)


def scribble(name: str) -> bytes:
    """A PNG file of black lines on white, 105 x 105 pixels of a bit; each name has its own."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    image = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(image).line(random.integers(10, 95, size=12).tolist(), fill=0, width=3)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
