"""A world small enough for unit tests: 24 noisy 8 x 8 patterns in 8 groups, and a network of two blocks."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.images import Images
from fewshot_runner.data.loader import TrainingLoader, Viewer
from fewshot_runner.data.provenance import Provenance
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Experiment, Trainer
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.protocols.episodes import Episodes
from fewshot_runner.engine.schedule import Constant
from fewshot_runner.engine.stopping import EarlyStopping, StopRequest, Watch
from fewshot_runner.engine.train import train
from fewshot_runner.facts import Facts
from fewshot_runner.methods.prototypical import Prototypical
from fewshot_runner.models.conv4 import Conv4
from fewshot_runner.runs import RunFolder

SIZE, PER_CLASS, PER_GROUP = 8, 8, 3
PARTS = {"train": range(12), "val": range(12, 18), "test": range(18, 24)}
SETTINGS = {"seed": 0, "rate": 0.01}  # as TensorBoard shows them
FACTS = Facts(image_shape=(1, SIZE, SIZE), n_classes=12)


class World:
    """Pixels, and per part the table, the viewer and the episodes. `seen` collects the index of every image viewed."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        templates = torch.rand(24, 1, 1, SIZE, SIZE, generator=random)
        noisy = templates + 0.45 * torch.randn(24, PER_CLASS, 1, SIZE, SIZE, generator=random)
        self.pixels = (noisy.clamp(0, 1) * 255).byte().flatten(0, 1)  # (I, 1, SIZE, SIZE)
        self.labels = np.arange(24).repeat(PER_CLASS)
        self.seen: list[torch.Tensor] = []
        images = Images(self.pixels)
        gather = images.gather

        def recording_gather(index: torch.Tensor, **options: Any) -> torch.Tensor:
            self.seen.append(index)
            return gather(index, **options)

        images.gather = recording_gather  # type: ignore[method-assign]
        self.viewer = Viewer(images, Standardise(), symmetries=False, device=torch.device("cpu"))

    def table(self, part: str) -> ClassTable:
        names = [f"class{c:02d}" for c in range(24)]
        groups = [f"group{c // PER_GROUP}" for c in range(24)]
        return ClassTable.build(self.labels, names, groups, np.flatnonzero(np.isin(self.labels, PARTS[part])))

    def protocol(self, part: str, *, episodes: int = 20, n_way: int = 4, n_shot: int = 1, n_query: int = 3) -> Episodes:
        return Episodes(
            self.table(part), self.viewer, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=False,
            episodes=episodes, seed=0, part=part,
        )  # fmt: skip


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


class Recorder:
    """Stands for the log and for the checkpoint folder, and writes down what is asked of them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.train: dict[int, dict[str, float]] = {}
        self.val: dict[int, dict[str, float]] = {}
        self.states: dict[int, dict] = {}
        self.best: dict | None = None

    def step(self, step: int, figures: dict[str, float], *, rate: float, images_per_second: float) -> None:
        self.events.append(f"log {step}")
        self.train[step] = {**figures, "learning_rate": rate}

    def validation(self, step: int, figures: dict[str, float]) -> None:
        self.events.append(f"log validation {step}")
        self.val[step] = figures

    def flush(self) -> None:
        self.events.append("flush")

    def save_step(self, step: int, state: dict) -> None:
        self.events.append(f"save step {step}")
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        self.states[step] = torch.load(buffer, weights_only=True)

    def save_best(self, state: dict) -> None:
        self.events.append(f"save best {state['step']}")
        self.best = {name: value.clone() for name, value in state["method"].items()}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
