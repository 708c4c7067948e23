"""A step of the siamese tutorial, 512 pairs of 105 x 105 pixels: against the tutorial's own loop."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks import omniglot, own
from benchmarks.apart import apart
from benchmarks.measuring import Bench, Contestant, Figure, race, speedup
from benchmarks.rivals import siamese_tutorial

SETTINGS = ("experiment=siamese_tutorial_faithful", "dataset.tests=null")
ROUNDS = 8


def figures(bench: Bench) -> Iterator[Figure]:
    dataset = own.dataset(*SETTINGS, threads=bench.threads)
    with omniglot.png_folder(dataset) as folder:
        makers = {
            "fsl": (fsl, {"threads": bench.threads, "overrides": []}),
            "the tutorial's loop": (tutorial, {"folder": folder}),
        }
        for path in own.OF_NETWORKS:
            makers[f"fsl, {path} off"] = (fsl, {"threads": bench.threads, "overrides": [f"hardware.{path}=false"]})
        with apart(makers, threads=bench.threads) as runs:
            samples = race({name: Contestant(run) for name, run in runs.items()}, rounds=bench.rounds(ROUNDS))
    name = "siamese tutorial: time a step"
    yield speedup(name, samples, against="the tutorial's loop", target=3.0)
    for other in samples:
        if other.startswith("fsl, "):
            yield speedup(name, samples, against=other)


def fsl(threads: int, overrides: list[str]) -> own.Training:
    return own.Training(*SETTINGS, *overrides, threads=threads)


def tutorial(folder: Path) -> siamese_tutorial.Training:
    return siamese_tutorial.Training(siamese_tutorial.Twins(), folder)
