"""Methods built by the project's own builder, on a few built-in characters."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose

DATA = (
    "dataset=glyphs",
    "++dataset.source.alphabets=6",
    "++dataset.source.characters=6",
    "++dataset.source.drawers=8",
    "hardware.device=cpu",
    "hardware.threads=1",
    "episode.n_way=4",
    "episode.n_shot=1",
    "episode.n_query=2",
    "eval.episodes=12",
    "trainer.val_episodes=6",
)
# What a sampler's size is lowered to, whichever sampler has it.
AT_MOST = {"n_way": 4, "n_shot": 2, "n_query": 2, "episodes": 2, "n_classes": 6, "n_images": 3, "n_groups": 2,
           "n_pairs": 8, "batch_size": 12}  # fmt: skip


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Builder]:
    """`build("siamese", ...)`: the builder of conf/method/siamese.yaml with its sampler reduced; further overrides."""
    folder: Path = tmp_path_factory.mktemp("glyphs")

    @cache
    def build(method: str, *overrides: str) -> Builder:
        base = [f"method={method}", *DATA, f"dataset.cache={folder}"]
        sampler = compose(base)["method"]["sampler"]
        reduced = [
            f"method.sampler.{key}={min(value, AT_MOST[key])}"
            for key, value in sampler.items()
            if key in AT_MOST and isinstance(value, int)
        ]
        config = compose([*base, *reduced, *overrides])
        config["dataset"]["tests"] = {}  # further figures that so few characters cannot fill
        return Builder(config)

    return build
