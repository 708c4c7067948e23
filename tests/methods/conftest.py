"""Methods built by the project's own builder, on a few built-in characters."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from small_runs import GLYPHS, HARDWARE, smaller_sampler

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose

DATA = (*GLYPHS, *HARDWARE, "eval.episodes=12", "trainer.val_episodes=6")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Builder]:
    """`build("siamese", ...)`: the builder of conf/method/siamese.yaml with its sampler reduced; further overrides."""
    folder: Path = tmp_path_factory.mktemp("glyphs")

    @cache
    def build(method: str, *overrides: str) -> Builder:
        base = [f"method={method}", *DATA, f"dataset.cache={folder}"]
        sampler = compose(base)["method"]["sampler"]
        config = compose([*base, *smaller_sampler(sampler), *overrides])
        config["dataset"]["tests"] = {}  # further figures that so few characters cannot fill
        return Builder(config)

    return build
