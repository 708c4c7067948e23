"""How long commands take to answer, beyond Python's own start: `fsl --help` and `fsl train --cfg job`."""

import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.commands import FSL
from benchmarks.measuring import Bench, Contestant, Figure, race

ROUNDS = 15
BARE = "python -c pass"
LIMITS = {"fsl --help": 0.15, "fsl train --cfg job": 0.6}  # seconds


def figures(bench: Bench) -> Iterator[Figure]:
    commands = {BARE: [sys.executable, "-c", "pass"], **{name: [*FSL, *name.split()[1:]] for name in LIMITS}}
    contestants = {name: Contestant(lambda units, words=words: answered(words)) for name, words in commands.items()}
    samples = race(contestants, rounds=bench.rounds(ROUNDS))
    for name, limit in LIMITS.items():
        seconds = statistics.median(a - b for a, b in zip(samples[name], samples[BARE], strict=True))
        yield Figure(f"start of {name}", name, BARE, samples, "s", seconds, "s more", limit, at_least=False)


def answered(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
