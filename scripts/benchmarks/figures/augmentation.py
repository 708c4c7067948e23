"""640 pictures of 32 x 32 pixels under a random affine map and an elastic distortion: against torchvision's v2
transforms with the same settings, image by image."""

from collections.abc import Iterator

import torch

from benchmarks.measuring import Bench, Contestant, Figure, race, speedup
from benchmarks.rivals.torchvision_one_by_one import affine_and_elastic, one_by_one
from fewshot_runner.data.transforms import Warp

IMAGES, SIZE = 640, 32
SETTINGS = {"rotation": 15, "shear": 0.25, "scale": 0.2, "shift": 0.08, "elastic": 0.025}
ROUNDS, BATCHES = 9, 20


def figures(bench: Bench) -> Iterator[Figure]:
    images = torch.rand(IMAGES, 1, SIZE, SIZE)
    warp, generator = Warp(**SETTINGS), torch.Generator().manual_seed(0)
    theirs = affine_and_elastic(size=SIZE, **SETTINGS)
    contestants = {
        "fsl": Contestant(lambda units: [warp(images, generator) for _ in range(units)], bench.units(BATCHES)),
        "torchvision v2": Contestant(lambda units: one_by_one(theirs, images)),
    }
    samples = race(contestants, rounds=bench.rounds(ROUNDS))
    yield speedup(f"augmentation of {IMAGES} images", samples, against="torchvision v2", target=15.0)
