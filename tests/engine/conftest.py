"""What the tests of the engine are made with: the world of patterns, and a network of two blocks."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from patterns import FACTS, World
from recorder import Recorder
from rich.console import Console

from fewshot_runner.data.loader import TrainingLoader
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Experiment, Trainer
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.schedule import Constant
from fewshot_runner.engine.stopping import EarlyStopping, StopRequest, Watch
from fewshot_runner.engine.train import train
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.runs import RunFolder

SETTINGS = {"seed": 0, "rate": 0.01}  # as TensorBoard shows them


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def hardware() -> Hardware:
    return Hardware(device="cpu", threads=1)


@pytest.fixture
def make_method() -> Callable[..., Prototypical]:
    def make(seed: int = 0) -> Prototypical:
        torch.manual_seed(seed)
        return Prototypical(Conv4(FACTS, widths=(8, 8)), distance="euclidean")

    return make


@pytest.fixture
def make_experiment(world: World, hardware: Hardware, make_method: Callable) -> Callable[..., Experiment]:
    """Builds an untrained experiment; `changes` are fields of `Trainer` and of `Experiment`."""

    def make(*, rate: float = 0.01, seed: int = 0, **changes) -> Experiment:
        fields = set(Trainer.__dataclass_fields__)
        trainer = Trainer(**{"max_steps": 8, "val_every": 4, "val_episodes": 20, "checkpoint_every": 4, "log_every": 2,
                             "monitor": "accuracy"}
                          | {key: value for key, value in changes.items() if key in fields})  # fmt: skip
        method = changes.pop("method", None) or make_method(seed)
        optimizer = torch.optim.AdamW(method.parameters(), lr=rate)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        sampler = EpisodeSampler(world.table("train"), n_way=4, n_shot=1, n_query=2, episodes=2, seed=seed)
        parts = {
            "method": method,
            "items": TrainingLoader(world.viewer, sampler, None, seed=seed),
            "optimizer": optimizer,
            "schedules": {"lr": Constant()},
            "validation": world.protocol("val", episodes=trainer.val_episodes),
            "tests": lambda: {"4way1shot": world.protocol("test"), "4way2shot": world.protocol("test", n_shot=2)},
            "stopping": EarlyStopping(patience=trainer.patience, monitor=trainer.monitor),
            "trainer": trainer,
            "hardware": hardware,
            "seed": seed,
            "facts": FACTS,
            "provenance": Provenance("patterns", "halves", "0123456789abcdef", "fedcba9876543210"),
        }
        return Experiment(**(parts | {key: value for key, value in changes.items() if key not in fields}))

    return make


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder.claim(tmp_path, "patterns-prototypical")


@pytest.fixture
def train_in() -> Callable[..., str]:
    """`train` with its words on paper instead of the terminal; returns what it said."""

    def run(
        experiment: Experiment,
        run: RunFolder,
        stop: StopRequest | None = None,
        *,
        settings: dict = SETTINGS,
        watch: Watch | None = None,
    ) -> str:
        said = io.StringIO()
        narrator = Narrator(Console(file=said, width=200))
        train(experiment, run, narrator, stop or StopRequest(), settings=settings, watch=watch)
        return said.getvalue()

    return run


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
