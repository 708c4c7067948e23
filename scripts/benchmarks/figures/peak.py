"""Training of Conv4 on 60-way 5-shot 5-query episodes: the share that its convolutions reach of the machine's peak in
products of float32 matrices, and what its data path costs beside a step on a batch that is there already."""

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import networks, own
from benchmarks.measuring import Bench, Contestant, Figure, race, ratio

SETTINGS = (
    "method=prototypical_episodic", "model=conv4", "dataset.tests=null", "method.sampler.n_way=60",
    "method.sampler.n_shot=5", "method.sampler.n_query=5",
)  # fmt: skip
WIDTH = 2048  # of the matrices
ROUNDS, STEPS = 15, 3


def figures(bench: Bench) -> Iterator[Figure]:
    shown, fixed = (own.Training(*SETTINGS, threads=bench.threads) for _ in range(2))
    plain = own.Training(*SETTINGS, "dataset.augment=null", threads=bench.threads)
    work = convolution_flops(plain.experiment.items[0].n_images)
    matrices = torch.randn(2, WIDTH, WIDTH)
    steps = bench.units(STEPS)
    contestants = {
        "fsl": Contestant(plain, steps),
        "fsl, augmentation": Contestant(shown, steps),
        "fsl, no data path": Contestant(fixed.on_one_item(), steps),
        "torch.mm": Contestant(lambda units: [torch.mm(*matrices) for _ in range(units)], steps),
    }
    samples = race(contestants, rounds=bench.rounds(ROUNDS))
    share = ratio(samples, "torch.mm", "fsl") * work / (2 * WIDTH**3)
    note = f"{work / 1e9:.1f} GFLOP of convolution a step"
    yield Figure(
        "share of the matmul peak in training", "fsl", "torch.mm", samples, "s", share, "share", 0.4, note=note
    )
    for ours, note in (("fsl", "without augmentation"), ("fsl, augmentation", "default augmentation")):
        cost = ratio(samples, ours, "fsl, no data path")
        yield Figure(
            "a step beside the same on one fixed batch", ours, "fsl, no data path", samples, "s", cost, "x", 1.03,
            at_least=False, note=note,
        )  # fmt: skip


def convolution_flops(n_images: int) -> int:
    """Of the forward and backward passes through Conv4; the gradient of the pictures is never computed."""
    network = networks.conv4()
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(n_images, 1, 28, 28)).sum().backward()
    return counter.get_total_flops()
