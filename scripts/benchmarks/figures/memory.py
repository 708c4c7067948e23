"""The most memory that a process takes which trains and tests on Omniglot, 20-way 5-shot: against easyfsl's."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import networks, omniglot, own
from benchmarks.commands import FSL
from benchmarks.measuring import Bench, Figure, Samples, ratio
from benchmarks.rivals import easyfsl_loop

SHAPE = {"n_way": 20, "n_shot": 5, "n_query": 15}
STEPS, TESTED, ROUNDS = 40, 50, 3
SCRIPTS = Path(__file__).parents[2]


def figures(bench: Bench) -> Iterator[Figure]:
    steps, tested = bench.units(STEPS), bench.units(TESTED)
    dataset = own.builder(own.PLAIN, threads=bench.threads).dataset
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
        task = {"train": str(train), "test": str(test), "steps": steps, "tested": tested, "threads": bench.threads}
        easyfsl = [sys.executable, "-m", __name__, json.dumps(task)]
        samples: Samples = {"fsl": [], "easyfsl": []}
        for _ in range(bench.rounds(ROUNDS)):
            samples["fsl"].append(peak(fsl))
            samples["easyfsl"].append(peak(easyfsl))
    share = ratio(samples, "fsl", "easyfsl")
    yield Figure(
        "peak memory, 20-way 5-shot", "fsl", "easyfsl", samples, "MB", share, "x", 1.0, at_least=False,
        note="training and test, the whole process",
    )  # fmt: skip


def peak(words: list[str]) -> float:
    """The largest resident set of a process that has to succeed, in MB."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return usage.ru_maxrss / (1 << 10 if sys.platform != "darwin" else 1 << 20)


def easyfsl_run(train: str, test: str, *, steps: int, tested: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    backbone = networks.conv4()
    pictures = easyfsl_loop.Pictures(Path(train))
    easyfsl_loop.Training(backbone, easyfsl_loop.loader_of(pictures, **SHAPE))(steps)
    pictures = easyfsl_loop.Pictures(Path(test))
    easyfsl_loop.evaluate(backbone, easyfsl_loop.loader_of(pictures, **SHAPE, n_tasks=tested))


if __name__ == "__main__":
    easyfsl_run(**json.loads(sys.argv[1]))
