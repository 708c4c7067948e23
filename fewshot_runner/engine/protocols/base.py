"""The contract of a protocol: how tasks are drawn, and how their answers become figures.

Shapes: T tasks (what an interval is over: episodes, or else queries, images, pairs or probes).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.answers import Between
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.errors import UserError
from fewshot_runner.intervals import interval
from fewshot_runner.methods.base import EmbeddingMethod, Method


@dataclass(frozen=True)
class Evaluation:
    """A protocol's figures: under each name one value a task (T,); the first is the figure that a result is named by.

    `unit` says what a task is; `further` holds figures of the tasks as a whole, such as the area under a curve;
    `confusion` (N, N) counts the answers (columns) to the images of each class (rows); `answers` ranks the best ones
    to images, by name.
    """

    figures: Mapping[str, np.ndarray]
    protocol: Mapping[str, Any]
    unit: str = "episodes"
    further: Mapping[str, float] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return next(iter(self.figures))

    @property
    def values(self) -> np.ndarray:
        """(T,) the first figure of each task."""
        return self.figures[self.metric]

    @property
    def ci95(self) -> float | None:
        """Half the width of the 95 % interval of the mean over tasks, for what differs from task to task alone."""
        return interval(self.values, unit=self.unit)

    def means(self) -> dict[str, float]:
        """Every figure by name, the first one first."""
        return {name: float(values.mean()) for name, values in self.figures.items()} | dict(self.further)


class Protocol(ABC):
    """A fixed list of tasks.

    `viewer` turns their indices into images; `bn_mode` is whose statistics batch norm uses; `table` holds the classes
    that they ask about, where these are known by their names.
    """

    viewer: AnyViewer
    table: ClassTable | None = None
    bn_mode: str = "running"
    figures: tuple[str, ...] = ("accuracy",)  # the names that `measure` gives values for
    uses: tuple[str, ...] = ()  # which settings of an episode and of a test change its figures, besides `bn_mode`
    of_known_classes: bool = False  # whether its parts share classes and differ in images

    @staticmethod  # noqa: B027 - most protocols take any method
    def check(method: Method) -> None:
        """Raises `UserError` where `method` cannot answer such tasks; called before it is trained."""

    @abstractmethod
    def measure(self, method: Method, between: Between) -> Evaluation:
        """The figures of `method`, in evaluation mode and without gradients; `between` is called now and then."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The fields that tell this protocol's figures from others'."""

    @property
    def mode(self) -> dict[str, str]:
        """What a method was allowed to see."""
        seen = "transductive" if self.bn_mode == "transductive" else "inductive"
        return {"mode": seen, "bn_mode": self.bn_mode}


def check_compares(method: Method, *, protocol: str, example: str) -> None:
    """Raises `UserError` unless `method` says of two images alone how similar they are."""
    if not isinstance(method, EmbeddingMethod) or not method.compares_pairs:
        raise UserError(
            f"eval.protocol={protocol}: {type(method).__name__} does not compare two images; choose a method that "
            f"does, such as method={example}, or eval.protocol=episodes"
        )


def check_running(bn_mode: str, *, protocol: str) -> None:
    """Raises `UserError` for statistics of an episode where there are no episodes."""
    if bn_mode != "running":
        raise UserError(
            f"eval.bn_mode={bn_mode}: eval.protocol={protocol} knows running statistics alone; set eval.bn_mode=running"
        )
