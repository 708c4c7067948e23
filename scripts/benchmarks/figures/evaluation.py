"""Evaluation of a fixed embedding on 10,000 5-way 1-shot episodes with 15 queries, embedding included: against
easyfsl's evaluation of the pictures with 0 or 2 workers, timed on fewer episodes, and of features that its users may
compute first."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks import networks, omniglot, own
from benchmarks.apart import apart
from benchmarks.measuring import Bench, Contestant, Figure, fastest, race, speedup
from fewshot_runner.engine.evaluate import evaluate

EPISODES, TIMED = 10_000, 200
SHAPE = {"n_way": 5, "n_shot": 1, "n_query": 15}
ROUNDS = 3
NAME = "evaluation, 5-way 1-shot: time an episode"
FEATURES_FIRST = "easyfsl, features first"


def figures(bench: Bench) -> Iterator[Figure]:
    episodes, timed = bench.units(EPISODES), bench.units(TIMED)
    dataset = own.dataset(*own.PLAIN, threads=bench.threads)
    with omniglot.png_folder(dataset, "test") as folder:
        makers = {
            "fsl": (fsl, {"threads": bench.threads, "episodes": episodes}),
            FEATURES_FIRST: (on_features, {"folder": folder}),
        }
        on_fewer = {f"easyfsl, {workers} workers": workers for workers in (0, 2)}
        for name, workers in on_fewer.items():
            makers[name] = (on_pictures, {"folder": folder, "workers": workers, "episodes": timed})
        with apart(makers, threads=bench.threads) as runs:
            contestants = {name: Contestant(run, timed if name in on_fewer else episodes) for name, run in runs.items()}
            samples = race(contestants, rounds=bench.rounds(ROUNDS))
    note = f"{episodes:,} episodes; easyfsl's time is that of {timed}, extrapolated"
    yield speedup(NAME, samples, against=fastest(samples, on_fewer), target=200.0, note=note)
    yield speedup(NAME, samples, against=FEATURES_FIRST)


def fsl(threads: int, episodes: int) -> Callable[[int], object]:
    words = ["method=prototypical_episodic", "model=conv4", *own.PLAIN, f"eval.episodes={episodes}"]
    experiment = own.experiment(*words, threads=threads)
    (protocol,) = experiment.tests().values()
    return lambda units: evaluate(experiment.method, protocol, hardware=experiment.hardware)


def on_pictures(folder: Path, workers: int, episodes: int) -> Callable[[int], float]:
    """The workers stay from one turn to the next: over 10,000 episodes their start would not count."""
    from benchmarks.rivals import easyfsl_loop

    network, pictures = networks.conv4().eval(), easyfsl_loop.Pictures(folder)
    loader = easyfsl_loop.loader_of(pictures, **SHAPE, n_tasks=episodes, workers=workers)
    return lambda units: easyfsl_loop.evaluate(network, loader)


def on_features(folder: Path) -> Callable[[int], float]:
    """easyfsl's way to embed every picture once."""
    from easyfsl.datasets import FeaturesDataset
    from easyfsl.utils import predict_embeddings

    from benchmarks.rivals import easyfsl_loop

    network, pictures = networks.conv4().eval(), easyfsl_loop.Pictures(folder)

    def run(units: int) -> float:
        frame = predict_embeddings(DataLoader(pictures, batch_size=1024), network)
        features = FeaturesDataset.from_dataframe(frame)
        loader = easyfsl_loop.loader_of(features, **SHAPE, n_tasks=units)
        return easyfsl_loop.evaluate(torch.nn.Identity(), loader)

    return run
