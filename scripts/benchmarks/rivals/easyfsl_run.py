"""easyfsl's training and then its test, in a process that imports nothing of fsl."""

import json
import sys
from pathlib import Path

import torch

from benchmarks import networks
from benchmarks.rivals import easyfsl_loop


def run(train: str, test: str, *, shape: dict[str, int], steps: int, tested: int, threads: int) -> None:
    torch.set_num_threads(threads)
    backbone = networks.conv4()
    pictures = easyfsl_loop.Pictures(Path(train))
    easyfsl_loop.Training(backbone, easyfsl_loop.loader_of(pictures, **shape))(steps)
    pictures = easyfsl_loop.Pictures(Path(test))
    easyfsl_loop.evaluate(backbone, easyfsl_loop.loader_of(pictures, **shape, n_tasks=tested))


if __name__ == "__main__":
    run(**json.loads(sys.argv[1]))
