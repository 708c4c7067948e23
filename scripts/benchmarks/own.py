"""fsl as a contestant: what its commands build and run, without a run folder."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose
from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Experiment
from fewshot_runner.engine.fit import fit

PLAIN = ("dataset.augment=null", "dataset.symmetries=none", "dataset.tests=null")  # nobody else augments
FOREVER = 1_000_000


def builder(overrides: Sequence[str], *, threads: int) -> Builder:
    """The parts of a run on Omniglot on the CPU."""
    return Builder(compose(["dataset=omniglot", "hardware=cpu", f"hardware.threads={threads}", *overrides]))


def dataset(*overrides: str, threads: int) -> Dataset:
    """Omniglot for the process that starts the contestants; its own settings of memory stay the system's."""
    return builder([*overrides, "hardware.keep_memory=false"], threads=threads).dataset


def experiment(*overrides: str, threads: int) -> Experiment:
    return builder(overrides, threads=threads).experiment()


# The switches of `Hardware` that are on unless turned off: one of them is about GPUs alone, one about tasks, and the
# others are about networks.
SWITCHES = [name for name, parameter in inspect.signature(Hardware).parameters.items() if parameter.default is True]
FAST_PATHS = [switch for switch in SWITCHES if switch != "deterministic"]
OF_TASKS = "tasks_side_by_side"
OF_NETWORKS = [path for path in FAST_PATHS if path != OF_TASKS]
NO_FAST_PATHS = tuple(f"hardware.{path}=false" for path in FAST_PATHS)


class Training:
    """fsl's own training loop, so many steps at a time; nothing is written to disk."""

    def __init__(self, *overrides: str, threads: int, config: Mapping[str, Any] | None = None) -> None:
        """`overrides` of a run on Omniglot, or another run's whole `config`."""
        described = builder(overrides, threads=threads) if config is None else Builder(config)
        self.experiment = described.experiment()

    def on_one_item(self) -> "Training":
        """The same with no data path: every step takes item 0, which is there already."""
        self.experiment.items = OneItem(self.experiment.items[0])
        return self

    def __call__(self, steps: int) -> None:
        running = self.experiment
        last = running.progress.step + steps
        running.trainer = replace(running.trainer, max_steps=last, val_every=FOREVER, checkpoint_every=FOREVER)
        fit(running, lambda: {running.stopping.monitor: 0.0}, Nowhere(), Nowhere(), SimpleNamespace(requested=False))


class OneItem:
    """Stands where a `TrainingLoader` does."""

    def __init__(self, item: Episode | Batch) -> None:
        self.item = item

    def __getitem__(self, k: int) -> Episode | Batch:
        return self.item


class Nowhere:
    """Stands where checkpoints and the log do, and keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None
