"""Training on a store of three million pictures: how much longer a step takes than on twenty thousand once the pages
are in memory, and how much longer again with less memory than the store has bytes."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import large_store, own
from benchmarks.apart import plain_environment
from benchmarks.measuring import Bench, Contestant, Figure, Samples, race, ratio
from benchmarks.memory_limit import forget, limited

SMALL, LARGE = 20_000, 3_000_000
IMAGE_BYTES = large_store.SIZE**2
LIMIT = 1_300_000_000  # bytes: about half of the large store, and twice what a small run takes
WARM_UP, STEPS, ROUNDS = 3, 20, 3
FLAT = 1.1
LITTLE = "with little memory"
SCRIPTS = Path(__file__).parents[2]


def figures(bench: Bench) -> Iterator[Figure]:
    counts = {"small store": SMALL, "large store": 100_000 if bench.quick else LARGE}
    steps = bench.units(STEPS)
    with tempfile.TemporaryDirectory(prefix="fsl-bench-") as folder, limited(LIMIT) as command:
        stores = {name: large_store.written(count, Path(folder)) for name, count in counts.items()}
        common = {"cache": folder, "threads": bench.threads, "steps": steps}
        tasks = {name: {**common, "count": count, "store": str(stores[name])} for name, count in counts.items()}
        samples: Samples = {name: [] for name in counts}
        read_again = []
        for _ in range(bench.rounds(ROUNDS)):
            for name, task in tasks.items():
                samples[name].append(trained(task)["seconds"])
            if command is not None:
                for file in stores["large store"].iterdir():
                    forget(file)
                found = trained(tasks["large store"], command)
                samples.setdefault(LITTLE, []).append(found["seconds"])
                read_again.append(found["read"])
    cost = ratio(samples, "large store", "small store")
    note = f"{counts['large store']:,} and {SMALL:,} images"
    yield Figure(
        "a step on a large store", "large store", "small store", samples, "s", cost, "x", FLAT, at_least=False,
        note=note,
    )  # fmt: skip
    if command is None:
        print("growth: not measured with little memory: to limit it takes root and Linux's cgroups", file=sys.stderr)
        return
    note = (
        f"{megabytes(LIMIT)} of memory, page cache included, for {megabytes(counts['large store'] * IMAGE_BYTES)} of "
        f"pictures, which were all read once; {megabytes(statistics.median(read_again))} again in {steps} steps"
    )
    slower = ratio(samples, LITTLE, "large store")
    yield Figure(
        "a step on a store larger than memory", LITTLE, "large store", samples, "s", slower, "x", note=note,
    )  # fmt: skip


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def trained(task: dict[str, int | str], before: list[str] | None = None) -> dict[str, float]:
    """What `train` finds in a process of its own, started by way of the command `before`."""
    words = [*(before or []), sys.executable, "-m", __name__, json.dumps(task)]
    with plain_environment():
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
        return json.loads(subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def train(*, count: int, cache: str, store: str, threads: int, steps: int) -> dict[str, float]:
    """Seconds a step, and the bytes that all those steps read from the disk, once the whole store has been read."""
    for file in Path(store).iterdir():
        read(file)
    run = own.Training(threads=threads, config=large_store.config(count, cache, threads=threads))
    run(WARM_UP)
    before = bytes_from_disk()
    seconds = race({"fsl": Contestant(run, steps)}, rounds=1, warm_up=False)["fsl"][0]
    return {"seconds": seconds, "read": bytes_from_disk() - before}


def read(file: Path) -> None:
    with open(file, "rb") as content:
        while content.read(1 << 24):
            pass


def bytes_from_disk() -> int:
    """What this process has had to wait for since it began; what was in memory already does not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


if __name__ == "__main__":
    print(json.dumps(train(**json.loads(sys.argv[1]))))
