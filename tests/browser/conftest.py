"""Debian's Chromium, and two finished runs of different methods to look at."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE

import fewshot_runner as fsl
from fewshot_runner.runs import RunFolder

CHROMIUM = Path("/usr/bin/chromium")
REQUIRED = "FSL_REQUIRE_BROWSER"  # where it is set, a missing browser is a failure
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
TINY = [
    "dataset=glyphs", "++dataset.source.alphabets=6", "++dataset.source.characters=8", "++dataset.source.drawers=8",
    "dataset.tests=null", "dataset.image_size=16", "model=conv4", "model.widths=[8,8]", "episode.n_way=5",
    "episode.n_query=4", "hardware=cpu", "hardware.threads=1", "trainer.max_steps=20", "trainer.val_every=10",
    "trainer.val_episodes=20", "trainer.checkpoint_every=5", "trainer.log_every=5", "eval.episodes=50",
    "method.sampler.n_classes=8", "method.sampler.n_images=3", "method.sampler.n_groups=2",
]  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """A folder of runs, and the runs by method."""

    folder: Path
    runs: dict[str, RunFolder]

    def result(self, method: str) -> dict[str, Any]:
        [result] = self.runs[method].read_summary()["results"]
        return result


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    folder = tmp_path_factory.mktemp("browser") / "outputs"
    runs = {}
    for method in ("prototypical", "siamese"):
        overrides = [f"method={method}", *TINY, f"output_dir={folder}"]
        runs[method] = RunFolder(Path(fsl.train(fsl.compose(overrides))))
    return Outputs(folder, runs)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser with a profile of its own, which is thrown away; skipped by name where there is none."""
    reason = None
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        reason = "needs Playwright for Python: pip install 'fewshot-runner[dev]'"
    if not CHROMIUM.is_file():
        reason = f"needs a browser at {CHROMIUM}: apt-get install chromium"
    if reason is not None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason} ({REQUIRED} is set)")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * PATIENCE)
        yield browser
        browser.close()
