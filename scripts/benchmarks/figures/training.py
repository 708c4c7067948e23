"""Training of Conv4 prototypical networks, one episode a step, 15 queries a class, Adam: against easyfsl over PNG files
with 0 or 2 workers, and against a plain loop over a tensor in memory."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks import networks, omniglot, own
from benchmarks.apart import apart
from benchmarks.measuring import Bench, Contestant, Figure, fastest, race, speedup
from benchmarks.rivals import plain_prototypical

QUERIES = 15
SHAPES = {(5, 1): 60, (5, 5): 50, (20, 5): 12}  # (ways, shots): episodes a turn
TAKEN_APART = (5, 5)  # the shape at which fsl runs without each of its fast paths as well, and compiled
ROUNDS = 5

Shape = dict[str, int]


def figures(bench: Bench) -> Iterator[Figure]:
    dataset = own.dataset(*own.PLAIN, threads=bench.threads)
    with omniglot.png_folder(dataset) as folder:
        for (n_way, n_shot), episodes in SHAPES.items():
            shape = {"n_way": n_way, "n_shot": n_shot, "n_query": QUERIES}
            own_way = {"shape": shape, "threads": bench.threads}
            makers = {"fsl": (fsl, {**own_way, "overrides": []}), "plain loop": (plain_loop, own_way)}
            for workers in (0, 2):
                makers[f"easyfsl, {workers} workers"] = (
                    easyfsl,
                    {"shape": shape, "folder": folder, "workers": workers},
                )
            if (n_way, n_shot) == TAKEN_APART:
                makers["fsl, compile on"] = (fsl, {**own_way, "overrides": ["hardware.compile=true"]})
                for path in own.OF_NETWORKS:
                    makers[f"fsl, {path} off"] = (fsl, {**own_way, "overrides": [f"hardware.{path}=false"]})
            with apart(makers, threads=bench.threads) as runs:
                contestants = {name: Contestant(run, bench.units(episodes)) for name, run in runs.items()}
                samples = race(contestants, rounds=bench.rounds(ROUNDS))
            rival = fastest(samples, (name for name in samples if name.startswith("easyfsl")))
            name = f"training, {n_way}-way {n_shot}-shot: time an episode"
            yield speedup(name, samples, against=rival, target=3.0)
            for other in samples:
                if other == "plain loop" or other.startswith("fsl, "):
                    yield speedup(name, samples, against=other)


def fsl(shape: Shape, threads: int, overrides: list[str]) -> own.Training:
    words = [f"method.sampler.{key}={value}" for key, value in shape.items()]
    return own.Training("method=prototypical_episodic", "model=conv4", *own.PLAIN, *words, *overrides, threads=threads)


def plain_loop(shape: Shape, threads: int) -> plain_prototypical.Training:
    dataset = own.builder([*own.PLAIN, *own.NO_FAST_PATHS], threads=threads).dataset
    return plain_prototypical.Training(networks.conv4(), *omniglot.as_tensor(dataset), **shape)


def easyfsl(shape: Shape, folder: Path, workers: int):
    from benchmarks.rivals import easyfsl_loop

    loader = easyfsl_loop.loader_of(easyfsl_loop.Pictures(folder), **shape, workers=workers)
    return easyfsl_loop.Training(networks.conv4(), loader)
