"""Drawing a training item, as indices: what it costs more among a million images or a hundred thousand classes."""

from collections.abc import Iterator

import numpy as np

from benchmarks.measuring import Bench, Contestant, Figure, race, ratio
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import EpisodeSampler, PairSampler, PKSampler, Sampler

SIZES = {"1e3 images": (180, 6), "1e6 images": (180, 6_000), "1e5 classes": (100_000, 10)}  # classes, images of each
GROUPS, SMALL_GROUP = 10, 15  # groups; classes of a group that has too few for a batch
ROUNDS, ITEMS = 9, 300
FLAT = 1.3  # caches make the drawing of a million indices dearer whatever the sampler does


def figures(bench: Bench) -> Iterator[Figure]:
    smallest, *larger = SIZES
    tables = {name: table_of(*size, GROUPS) for name, size in SIZES.items()}
    of_small_groups = {name: table_of(*size, size[0] // SMALL_GROUP) for name, size in SIZES.items()}
    for kind, drawn, among in (
        ("an episode", episodes, tables),
        ("a P x K batch", batches, tables),
        ("a P x K batch of small groups", filled_batches, of_small_groups),
        ("pairs", pairs, tables),
    ):
        contestants = {name: drawing(drawn(table), bench.units(ITEMS)) for name, table in among.items()}
        samples = race(contestants, rounds=bench.rounds(ROUNDS))
        for name in larger:
            cost = ratio(samples, name, smallest)
            title = f"drawing {kind} of {name}"
            yield Figure(title, name, smallest, samples, "s", cost, "x", FLAT, at_least=False)


def table_of(n_classes: int, n_images: int, n_groups: int) -> ClassTable:
    labels = np.arange(n_classes).repeat(n_images)
    names = [f"{label:06d}" for label in range(n_classes)]
    groups = [f"{label * n_groups // n_classes}" for label in range(n_classes)]
    return ClassTable.build(labels, names, groups, np.arange(len(labels)))


def episodes(table: ClassTable) -> Sampler:
    return EpisodeSampler(table, n_way=5, n_shot=1, n_query=5, seed=0)


def batches(table: ClassTable) -> Sampler:
    return PKSampler(table, n_classes=64, n_images=4, n_groups=8, seed=0)


def filled_batches(table: ClassTable) -> Sampler:
    """Eight groups have 120 classes; the other 40 come from anywhere."""
    return PKSampler(table, n_classes=160, n_images=4, n_groups=8, seed=0)


def pairs(table: ClassTable) -> Sampler:
    return PairSampler(table, n_pairs=512, seed=0)


def drawing(sampler: Sampler, items: int) -> Contestant:
    return Contestant(lambda units: [sampler[k] for k in range(units)], items)
