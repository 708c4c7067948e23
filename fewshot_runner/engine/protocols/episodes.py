"""Tasks that are episodes: drawn at random from the classes of a part, or fixed by the authors of a data set.

Shapes: E episodes, S support images, Q queries.
"""

from abc import abstractmethod
from typing import Any

import torch

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.data.source import Run
from fewshot_runner.engine.answers import Between, episode_logits
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.engine.protocols.base import Evaluation, Protocol
from fewshot_runner.methods.base import Method


class EpisodeProtocol(Protocol):
    """A list of episodes, whose figure is the mean accuracy on their queries; of a single episode, its queries are
    the tasks.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of episodes."""

    @abstractmethod
    def draw(self, start: int, stop: int) -> Episode:
        """Episodes number `start` to `stop - 1`, as indices; always the same, however they are divided up."""

    def measure(self, method: Method, between: Between) -> Evaluation:
        right = []
        for episode, logits in episode_logits(method, self.draw, len(self), self.viewer, between):
            right.append(query_accuracy(logits.float(), episode.query_labels))  # (E, Q)
        if len(self) == 1:
            return Evaluation({"accuracy": right[0][0].numpy()}, self.describe(), unit="queries")
        return Evaluation({"accuracy": torch.cat([each.mean(dim=-1) for each in right]).numpy()}, self.describe())


class Episodes(EpisodeProtocol):
    """N-way K-shot episodes over the classes of one part of a split, across or within groups."""

    uses = ("n_way", "n_shot", "n_query", "within_group", "episodes", "seed", "imbalance")

    def __init__(
        self,
        table: ClassTable,
        viewer: AnyViewer,
        *,
        n_way: int | str,
        n_shot: int,
        n_query: int,
        within_group: bool,
        episodes: int,
        seed: int,
        part: str,
        imbalance: float | None = None,
        bn_mode: str = "running",
    ) -> None:
        self.viewer = viewer
        self.table = table
        self.episodes = episodes
        self.part = part
        self.bn_mode = bn_mode
        self.sampler = EpisodeSampler(
            table, n_way=n_way, n_shot=n_shot, n_query=n_query, within_group=within_group, imbalance=imbalance,
            seed=seed, stream=part,
        )  # fmt: skip

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
            "imbalance": sampler.imbalance,
            **({} if sampler.imbalance is None else {"most_queries": sampler.most_queries}),
            "episodes": self.episodes,
            "episode_seed": sampler.seed,
            **self.mode,
        }


class Runs(EpisodeProtocol):
    """Trials that the authors of a data set fixed, such as Lake's 20 runs of 20-way one-shot classification."""

    uses = ("runs",)

    def __init__(self, runs: list[Run], viewer: AnyViewer, *, name: str, bn_mode: str = "running") -> None:
        self.viewer = viewer
        self.runs = runs
        self.name = name
        self.bn_mode = bn_mode
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
            **self.mode,
        }
