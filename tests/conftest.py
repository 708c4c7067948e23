"""What all tests share: where real data lie, a cache that is thrown away, and a toy data set in memory."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from fewshot_runner.data.source import PARTS, Item, Source, Split
from fewshot_runner.errors import UserError

# How long an example takes says how busy the machine is.
settings.register_profile("fsl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fsl")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of the session, common to xdist's workers and to every command that a test starts."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSL_CACHE", str(path))
        yield path


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """Of what the user has set: no proxy before servers of the tests' own, and no colours or width of a terminal.

    Nor is Ctrl-C ignored, as a shell has it for what it starts in the background, and for all that is started there.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", f"127.0.0.1,{getproxies().get('no', '')}")
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever other tests have left; on busy cores, several that share an operation mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data: $FSL_DATA, else ../shared/data beside the project."""
    root = Path(os.environ.get("FSL_DATA") or Path(__file__).parents[2] / "shared" / "data").resolve()
    if not root.is_dir():
        pytest.skip(f"needs real data, and {root} is no folder; set FSL_DATA")
    return root


@pytest.fixture(scope="session")
def omniglot_data(shared_data: Path) -> Path:
    """A data folder that holds the whole of Omniglot."""
    for name in ("images_background", "images_evaluation"):
        if not any((shared_data / "omniglot-py" / f"{name}{ending}").exists() for ending in ("", ".zip")):
            pytest.skip(f"needs Omniglot, and {shared_data}/omniglot-py/{name}.zip is absent; set FSL_DATA")
    return shared_data


class Squares(Source):
    """Coloured squares on white, 20 x 20 pixels: the class is the colour, the image the place of the square.

    Groups of two classes, "warm/0", "warm/1", "cold/0" and so on. Splits: "classes" (the last two classes are val
    and test) and "images" (the last two images of every class are val and test).
    """

    name = "squares"

    def __init__(self, *, n_groups: int = 3, n_images: int = 6, version: int = 1) -> None:
        self.version = version
        self.n_images = n_images
        self.decoded: list[int] = []  # which images were asked for, in order
        groups = ["warm", "cold", "pale", *(f"group{number}" for number in range(3, n_groups))][:n_groups]
        self.classes = [f"{group}/{number}" for group in groups for number in range(2)]

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "classes": self.classes, "images": self.n_images}

    def items(self) -> list[Item]:
        return [
            Item(name=f"{name}/{number}.png", class_name=name, group=name.split("/")[0])
            for name in self.classes
            for number in range(self.n_images)
        ]

    def image(self, index: int) -> Image.Image:
        self.decoded.append(index)
        label, number = divmod(index, self.n_images)
        pixels = np.full((20, 20, 3), 255, dtype=np.uint8)
        left, top = 2 * number, 3 + number
        pixels[top : top + 8, left : left + 6] = (40 * label % 256, 200 - 30 * label % 200, 17 * (label + 1) % 256)
        return Image.fromarray(pixels)

    def split(self, name: str) -> Split:
        *train, val, test = self.classes
        if name == "classes":
            return Split(name, {"train": train, "val": [val], "test": [test]})
        if name == "images":
            last = {self.n_images - 2: "val", self.n_images - 1: "test"}
            images: dict[str, list[str]] = {part: [] for part in PARTS}
            for index, item in enumerate(self.items()):
                images[last.get(index % self.n_images, "train")].append(item.name)
            return Split(name, dict.fromkeys(PARTS, self.classes), images)
        raise UserError(f"dataset.split={name}: squares have the splits classes and images")


@pytest.fixture(scope="session")
def squares() -> type[Squares]:
    """The class of the toy source; a test makes as many as it needs."""
    return Squares
