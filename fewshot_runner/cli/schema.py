"""The keys of a run's config and their types, where no component's constructor says them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fewshot_runner.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The top level of a run's config; `choices` names the member that was taken of each config group."""

    choices: Mapping[str, Any]
    dataset: Mapping[str, Any]
    model: Mapping[str, Any]
    method: Mapping[str, Any]
    episode: Mapping[str, Any]
    hardware: Mapping[str, Any]
    trainer: Mapping[str, Any]
    eval: Mapping[str, Any]
    seed: int
    name: str
    output_dir: str
    trusted_packages: list[str]
    published: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    learner: Mapping[str, Any]
    sampler: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    momentum: Mapping[str, Any] | None = None
    layers: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedConfig:
    """Figures that others published: by the name of the test, and where they stand.

    They are shown beside tests on the data sets and under the splits that are listed, where any are. They are of
    inductive tests, but for those whose name ends in "_transductive".
    """

    source: str
    figures: Mapping[str, float]
    dataset: list[str] | None = None
    split: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    n_way: int | Literal["all"]
    n_shot: int | Literal["all"]
    n_query: int
    within_group: bool


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    protocol: Literal["episodes", "runs", "closed_set", "verification", "retrieval"]
    episodes: int | Literal["auto"]
    seed: int
    bn_mode: Literal["running", "support", "transductive"]
    imbalance: float | None = None
    pairs: int = 10_000
    runs: str | None = None

    def __post_init__(self) -> None:
        if self.episodes != "auto" and self.episodes < 1:
            raise UserError(f"eval.episodes={self.episodes}: give auto or a whole number of 1 or more")
        if self.pairs < 2 or self.pairs % 2:
            raise UserError(f"eval.pairs={self.pairs}: give an even number of 2 or more, half of them of one class")
        if self.imbalance is not None and self.imbalance <= 0:
            raise UserError(f"eval.imbalance={self.imbalance}: give a number above 0, such as 2, or null")


@dataclass(frozen=True, kw_only=True)
class TestConfig(EpisodeConfig, EvalConfig):
    """One test figure: the run's episode and evaluation settings, changed in some places.

    `split`: the only split, or splits, of the data set under which this figure means anything.
    """

    split: str | list[str] | None = None
