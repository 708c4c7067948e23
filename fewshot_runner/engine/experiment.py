"""What a run consists of, once it is built: the parts that training and evaluation work with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from fewshot_runner.data.loader import TrainingLoader
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.protocols.base import Protocol
from fewshot_runner.engine.stopping import EarlyStopping
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import Method

Schedule = Callable[[float, int, int], float]  # base value, step, number of steps to the step's value


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """The settings of the loop, in steps; `patience` in validations, None to never stop early.

    `monitor` names the validation figure that chooses the best step; `clip_norm` bounds the norm of the gradient;
    `cache_features` computes the features of a frozen backbone once.
    """

    max_steps: int
    val_every: int
    val_episodes: int
    monitor: str
    checkpoint_every: int
    log_every: int
    patience: int | None = None
    clip_norm: float | None = None
    cache_features: bool = False

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise UserError(f"trainer.max_steps={self.max_steps}: give 0 (no training) or more steps")
        for key in ("val_every", "val_episodes", "checkpoint_every", "log_every"):
            if getattr(self, key) < 1:
                raise UserError(f"trainer.{key}={getattr(self, key)}: give a whole number of 1 or more")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"trainer.clip_norm={self.clip_norm}: give a number above 0, or null for no bound")


@dataclass
class Progress:
    """Where training stands besides weights and optimiser: the step, and figures summed since they were logged."""

    step: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    n_summed: int = 0

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Sums on the device, so that no step waits for it."""
        for name, value in figures.items():
            self.totals[name] = self.totals[name] + value if name in self.totals else value.float()
        self.n_summed += 1

    def take_means(self) -> dict[str, float]:
        """The means since the last call, fetched from the device."""
        means = {name: float(total) / self.n_summed for name, total in self.totals.items()}
        self.totals, self.n_summed = {}, 0
        return means


class DataChanged(UserError):
    """A checkpoint was made with other data than there are now."""


@dataclass
class Experiment:
    """A run's parts. `tests` builds the test protocols by name: called after training, so nothing sees them before.

    `schedules` gives each step's values of the optimiser's options by name ("lr"). `provenance` is kept in every
    checkpoint and result. `classes` names what a trained head answers with, in its order; `remarks` say what in the
    data keeps a test from telling all, and what was asked for in vain. `seen_classes` and `seen_files` (checksums) are
    what is trained and selected on.
    """

    method: Method
    items: TrainingLoader
    optimizer: Optimizer | None
    schedules: Mapping[str, Schedule]
    validation: Protocol
    tests: Callable[[], dict[str, Protocol]]
    stopping: EarlyStopping
    trainer: Trainer
    hardware: Hardware
    seed: int
    facts: Facts
    provenance: Provenance
    classes: Sequence[str] = ()
    remarks: Sequence[str] = ()
    seen_classes: Sequence[str] = ()
    seen_files: np.ndarray | None = None
    progress: Progress = field(default_factory=Progress)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes in training: with the config, all it takes to go on with the same bits. It holds what
        evaluation needs as well, since it stands in for the best state where that is damaged.
        """
        return {
            **self.best_state(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "stopping": self.stopping.state_dict(),
            "totals": self.progress.totals,
            "n_summed": self.progress.n_summed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_provenance(state)
        self.method.load_state_dict(state["method"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.stopping.load_state_dict(state["stopping"])
        self.progress = Progress(state["step"], state["totals"], state["n_summed"])

    def best_state(self) -> dict[str, Any]:
        """What evaluation and prediction need, without the data: the weights, and what the method was built for."""
        return {
            "method": self.method.state_dict(),
            "step": self.progress.step,
            "facts": asdict(self.facts),
            "classes": list(self.classes),
            "seen_classes": list(self.seen_classes),
            "seen_files": None if self.seen_files is None else torch.from_numpy(self.seen_files.view(np.int64)),
            **self.provenance.entries(),
        }

    def check_provenance(self, state: dict[str, Any]) -> None:
        """Raises `DataChanged` where a checkpoint was made with other data than stands here now."""
        if changed := self.provenance.changes(state):
            raise DataChanged(
                f"the data has changed since this checkpoint was written ({'; '.join(changed)}); "
                "put the former data back, or start a new run"
            )

    def describe(self) -> str:
        """What is trained on what, in two lines, with the remarks on the data between them."""
        table, method = self.items.sampler.classes, self.method
        item = self.items.sampler[0]
        n_parameters = sum(parameter.numel() for parameter in method.parameters())
        image = self.items.viewer.pictures(torch.from_numpy(table.members[:1]))
        shape = " x ".join(map(str, image.shape[1:]))
        groups = f"{table.n_groups} group{'s' * (table.n_groups != 1)}"
        data = (
            f"{self.provenance.dataset}, split {self.provenance.split} ({self.provenance.split_hash}): "
            f"{table.n_classes:,} training classes in {groups}, {len(table.members):,} images {shape}"
        )
        learner = (
            f"{type(method).__name__}, {n_parameters:,} parameters; {item.n_images} images a step; "
            f"{self.hardware.device}, {self.hardware.threads} thread{'s' * (self.hardware.threads != 1)}"
        )
        return "\n".join([data, *self.remarks, learner])
