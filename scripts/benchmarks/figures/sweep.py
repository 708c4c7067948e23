"""A sweep of 20 jobs of ten steps and a short test: against 20 commands."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.commands import FSL
from benchmarks.measuring import Bench, Contestant, Figure, race, speedup

JOBS = 20
SETTINGS = (
    "method=prototypical_episodic", "model=conv4", "dataset=glyphs", "dataset.tests=null", "method.sampler.n_way=5",
    "method.sampler.n_query=15", "trainer.max_steps=10", "trainer.val_every=10", "trainer.val_episodes=10",
    "eval.episodes=20",
)  # fmt: skip


def figures(bench: Bench) -> Iterator[Figure]:
    jobs = 3 if bench.quick else JOBS
    settings = [*SETTINGS, f"hardware.threads={bench.threads}"]
    with tempfile.TemporaryDirectory(prefix="fsl-bench-") as folder:

        def sweep(units: int) -> None:
            seeds = ",".join(map(str, range(units)))
            trained("-m", *settings, f"seed={seeds}", f"output_dir={fresh(folder)}")

        def one_by_one(units: int) -> None:
            place = fresh(folder)
            for seed in range(units):
                trained(*settings, f"seed={seed}", f"output_dir={place}")

        trained(*settings, f"output_dir={fresh(folder)}")  # the characters are drawn once
        samples = race(
            {"fsl": Contestant(sweep, jobs), f"{jobs} commands": Contestant(one_by_one, jobs)}, rounds=1, warm_up=False
        )
    yield speedup("a job of a sweep", samples, against=f"{jobs} commands", target=5.0, note=f"{jobs} jobs")


def trained(*words: str) -> None:
    subprocess.run([*FSL, "train", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fresh(folder: str) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))
