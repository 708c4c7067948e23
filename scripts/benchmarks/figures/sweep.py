"""A sweep of 20 jobs of ten steps and a short test, one after the other or two at a time: against 20 commands."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.commands import FSL
from benchmarks.measuring import Bench, Contestant, Figure, race, speedup

JOBS, ROUNDS = 20, 3
PARALLEL = "fsl, launcher=parallel"
SETTINGS = (
    "method=prototypical_episodic", "model=conv4", "dataset=glyphs", "dataset.tests=null", "method.sampler.n_way=5",
    "method.sampler.n_query=15", "trainer.max_steps=10", "trainer.val_every=10", "trainer.val_episodes=10",
    "eval.episodes=20",
)  # fmt: skip


def figures(bench: Bench) -> Iterator[Figure]:
    jobs = 3 if bench.quick else JOBS
    settings = [*SETTINGS, f"hardware.threads={bench.threads}"]
    with tempfile.TemporaryDirectory(prefix="fsl-bench-") as folder:

        def sweep(units: int, *more: str) -> None:
            seeds = ",".join(map(str, range(units)))
            trained("-m", *settings, *more, f"seed={seeds}", f"output_dir={fresh(folder)}")

        def side_by_side(units: int) -> None:
            threads = f"launcher.threads={max(1, bench.threads // 2)}"
            sweep(units, "launcher=parallel", "launcher.workers=2", threads, "hardware.threads=auto")

        def one_by_one(units: int) -> None:
            place = fresh(folder)
            for seed in range(units):
                trained(*settings, f"seed={seed}", f"output_dir={place}")

        trained(*settings, f"output_dir={fresh(folder)}")  # the characters are drawn once
        contestants = {"fsl": sweep, PARALLEL: side_by_side, f"{jobs} commands": one_by_one}
        timed = {name: Contestant(run, jobs) for name, run in contestants.items()}
        samples = race(timed, rounds=bench.rounds(ROUNDS), warm_up=False)
    for ours in ("fsl", PARALLEL):
        yield speedup(
            "a job of a sweep", samples, against=f"{jobs} commands", ours=ours, target=5.0, note=f"{jobs} jobs"
        )


def trained(*words: str) -> None:
    subprocess.run([*FSL, "train", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fresh(folder: str) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))
