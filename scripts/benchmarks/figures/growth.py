"""Training on a store of three million pictures: how much longer a step takes than on twenty thousand once the pages
are in memory, and that it runs with less memory than the store has bytes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import large_store, own
from benchmarks.measuring import Bench, Figure, Samples, ratio
from benchmarks.memory_limit import limited

SMALL, LARGE = 20_000, 3_000_000
IMAGE_BYTES = large_store.SIZE**2
LIMIT = 1_300_000_000  # bytes: about half of the large store, and twice what a small run takes
WARM_UP, STEPS, ROUNDS = 3, 20, 3
FLAT = 1.1
SCRIPTS = Path(__file__).parents[2]


def figures(bench: Bench) -> Iterator[Figure]:
    counts = {"small store": SMALL, "large store": 100_000 if bench.quick else LARGE}
    with tempfile.TemporaryDirectory(prefix="fsl-bench-") as folder:
        stores = {name: large_store.written(count, Path(folder)) for name, count in counts.items()}
        samples: Samples = {name: [] for name in counts}
        for _ in range(bench.rounds(ROUNDS)):
            for name, count in counts.items():
                warm(stores[name])
                samples[name].append(step_seconds(count, folder, bench))
        cost = ratio(samples, "large store", "small store")
        size = f"{counts['large store']:,} and {SMALL:,} images"
        yield Figure(
            "a step on a large store", "large store", "small store", samples, "s", cost, "x", FLAT, at_least=False,
            note=size,
        )  # fmt: skip
        with limited(LIMIT) as command:
            if command is None:
                return  # nobody but root may limit the page cache, and without that nothing is shown
            seconds = step_seconds(counts["large store"], folder, bench, command)
        stored = counts["large store"] * IMAGE_BYTES
        note = f"{LIMIT / 1e6:,.0f} MB of memory, page cache included, for {stored / 1e6:,.0f} MB of pictures"
        samples = {"with little memory": [seconds], "large store": samples["large store"][:1]}
        slower = ratio(samples, "with little memory", "large store")
        yield Figure(
            "a step on a store larger than memory", "with little memory", "large store", samples, "s", slower, "x",
            note=note,
        )  # fmt: skip


def warm(store: Path) -> None:
    for file in store.iterdir():
        with open(file, "rb") as content:
            while content.read(1 << 24):
                pass


def step_seconds(count: int, cache: str, bench: Bench, before: list[str] | None = None) -> float:
    """Seconds a step of a process of its own, started by way of the command `before`."""
    task = {"count": count, "cache": cache, "threads": bench.threads, "steps": bench.units(STEPS)}
    words = [*(before or []), sys.executable, "-m", __name__, json.dumps(task)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    return float(subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout)


def train(*, count: int, cache: str, threads: int, steps: int) -> float:
    from benchmarks.measuring import Contestant, race

    run = own.Training(threads=threads, config=large_store.config(count, cache, threads=threads))
    run(WARM_UP)
    return race({"fsl": Contestant(run, steps)}, rounds=1, warm_up=False)["fsl"][0]


if __name__ == "__main__":
    print(train(**json.loads(sys.argv[1])))
