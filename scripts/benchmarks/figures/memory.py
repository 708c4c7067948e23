"""The most memory that a process takes which trains and tests on Omniglot, 20-way 5-shot: against easyfsl's."""

import json
import sys
import tempfile
from collections.abc import Iterator

from benchmarks import omniglot, own
from benchmarks.commands import FSL
from benchmarks.measuring import Bench, Figure, Samples, ratio
from benchmarks.peak_memory import peak

SHAPE = {"n_way": 20, "n_shot": 5, "n_query": 15}
STEPS, TESTED, ROUNDS = 40, 50, 3


def figures(bench: Bench) -> Iterator[Figure]:
    steps, tested = bench.units(STEPS), bench.units(TESTED)
    dataset = own.dataset(*own.PLAIN, threads=bench.threads)
    with (
        omniglot.png_folder(dataset, "train") as train,
        omniglot.png_folder(dataset, "test") as test,
        tempfile.TemporaryDirectory(prefix="fsl-bench-") as outputs,
    ):
        episode = [f"episode.{key}={value}" for key, value in SHAPE.items()]
        sampler = [f"method.sampler.{key}={value}" for key, value in SHAPE.items()]
        fsl = [
            *FSL, "train", "dataset=omniglot", "method=prototypical_episodic", "model=conv4", *own.PLAIN, *episode,
            *sampler, "hardware=cpu", f"hardware.threads={bench.threads}", f"trainer.max_steps={steps}",
            f"trainer.val_every={steps}", f"trainer.val_episodes={tested}", f"eval.episodes={tested}",
            f"output_dir={outputs}",
        ]  # fmt: skip
        task = {
            "train": str(train), "test": str(test), "shape": SHAPE, "steps": steps, "tested": tested,
            "threads": bench.threads,
        }  # fmt: skip
        easyfsl = [sys.executable, "-m", "benchmarks.rivals.easyfsl_run", json.dumps(task)]
        samples: Samples = {"fsl": [], "easyfsl": []}
        for _ in range(bench.rounds(ROUNDS)):
            samples["fsl"].append(peak(fsl))
            samples["easyfsl"].append(peak(easyfsl))
    share = ratio(samples, "fsl", "easyfsl")
    yield Figure(
        "peak memory, 20-way 5-shot", "fsl", "easyfsl", samples, "MB", share, "x", 1.0, at_least=False,
        note="training and test, the whole process",
    )  # fmt: skip
