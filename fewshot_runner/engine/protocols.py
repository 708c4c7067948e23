"""How test tasks are drawn and what a result says about them: one small class a protocol.

Shapes: E episodes, S support images, Q queries.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.loader import Viewer
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.data.source import Run


class Protocol(ABC):
    """A fixed list of tasks. `viewer` turns their indices into images."""

    viewer: Viewer

    @abstractmethod
    def __len__(self) -> int:
        """The number of tasks."""

    @abstractmethod
    def draw(self, start: int, stop: int) -> Episode:
        """Tasks number `start` to `stop - 1`, as indices; always the same, however they are divided up."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The fields that tell this protocol's figures from others'."""


class Episodes(Protocol):
    """N-way K-shot episodes over the classes of one part of a split, across or within groups."""

    def __init__(
        self,
        table: ClassTable,
        viewer: Viewer,
        *,
        n_way: int | str,
        n_shot: int,
        n_query: int,
        within_group: bool,
        episodes: int,
        seed: int,
        part: str,
    ) -> None:
        self.viewer = viewer
        self.episodes = episodes
        self.part = part
        self.sampler = EpisodeSampler(
            table, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=within_group, seed=seed, stream=part
        )

    def __len__(self) -> int:
        return self.episodes

    def draw(self, start: int, stop: int) -> Episode:
        return self.sampler.draw(start, stop)

    def describe(self) -> dict[str, Any]:
        sampler = self.sampler
        return {
            "protocol": "episodes",
            "part": self.part,
            "n_way": sampler.n_way,
            "n_shot": sampler.n_shot,
            "n_query": sampler.n_query,
            "within_group": sampler.eligible_groups is not None,
            "episodes": self.episodes,
            "episode_seed": sampler.seed,
        }


class Runs(Protocol):
    """Trials that the authors of a data set fixed, such as Lake's 20 runs of 20-way one-shot classification."""

    def __init__(self, runs: list[Run], viewer: Viewer, *, name: str) -> None:
        self.viewer = viewer
        self.runs = runs
        self.name = name
        self.n_way = len(set(runs[0].support_labels))

    def __len__(self) -> int:
        return len(self.runs)

    def draw(self, start: int, stop: int) -> Episode:
        chosen = self.runs[start:stop]
        return Episode(
            support=torch.tensor([run.support for run in chosen]),
            support_labels=torch.tensor([run.support_labels for run in chosen]),
            query=torch.tensor([run.query for run in chosen]),
            query_labels=torch.tensor([run.query_labels for run in chosen]),
            n_way=self.n_way,
        )

    def describe(self) -> dict[str, Any]:
        return {
            "protocol": "runs",
            "part": self.name,
            "n_way": self.n_way,
            "n_shot": len(self.runs[0].support) // self.n_way,
            "n_query": len(self.runs[0].query) // self.n_way,
            "within_group": True,
            "episodes": len(self.runs),
            "episode_seed": None,
        }
