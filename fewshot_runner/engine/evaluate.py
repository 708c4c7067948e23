"""The evaluator: one for every method and protocol, and it changes nothing.

A method with a fixed embedding embeds each image that the tasks need once, and then only scores: ten thousand
episodes cost little more than their images. Any other method classifies episode by episode.

Shapes: E episodes, S support images, Q queries, N ways, M images needed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_runner.data.batch import Episode
from fewshot_runner.data.loader import Viewer
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.metrics import episode_accuracy, t_interval
from fewshot_runner.engine.protocols import Protocol
from fewshot_runner.methods.base import EmbeddingMethod, Method, evaluating

IMAGES_AT_ONCE = 1024
COMPARISONS_AT_ONCE = 1 << 17  # query-support pairs that are scored in one call


@dataclass(frozen=True)
class Evaluation:
    """A protocol's figures: the accuracy of every task, (E,), and what the tasks were."""

    accuracies: np.ndarray
    protocol: dict[str, Any]

    @property
    def accuracy(self) -> float:
        return float(self.accuracies.mean())

    @property
    def ci95(self) -> float | None:
        return t_interval(self.accuracies)


def evaluate(
    method: Method,
    protocol: Protocol,
    *,
    hardware: Hardware,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Mean per-task accuracy of `method`; `between` is called now and then and may raise to end it early."""
    accuracies = []
    with torch.no_grad(), evaluating(method), hardware.autocast():
        for episode, logits in _answers(method, protocol, between):
            accuracies.append(episode_accuracy(logits.float(), episode.query_labels))
            between()
    return Evaluation(torch.cat(accuracies).numpy(), protocol.describe())


def _answers(method: Method, protocol: Protocol, between: Callable[[], None]) -> Iterator[tuple[Episode, Tensor]]:
    """Chunks of episodes with their logits. The size of a chunk depends on the protocol alone, as last bits may."""
    if not isinstance(method, EmbeddingMethod):
        for start in range(len(protocol)):
            episode = protocol.draw(start, start + 1)
            yield episode, method.classify(episode.map(protocol.viewer).to(protocol.viewer.device))
        return
    episodes = protocol.draw(0, len(protocol))
    n_support, n_query = episodes.support.shape[1], episodes.query.shape[1]
    drawn = torch.cat([episodes.support, episodes.query], dim=1)  # (E, S + Q)
    needed, position = drawn.unique(return_inverse=True)  # (M,), (E, S + Q)
    features = embed_all(method, protocol.viewer, needed, between)  # (M, ...)
    positions = replace(episodes, support=position[:, :n_support], query=position[:, n_support:])
    chunk = max(1, COMPARISONS_AT_ONCE // (n_support * n_query))
    for start in range(0, len(protocol), chunk):
        embedded = positions[start : start + chunk].to(features.device).map(features.__getitem__)
        yield (
            embedded,
            method.score(embedded.support, embedded.support_labels, embedded.query, embedded.n_way),
        )


def embed_all(
    method: EmbeddingMethod, viewer: Viewer, index: Tensor, between: Callable[[], None] = lambda: None
) -> Tensor:
    """Features (M, ...) of the images at `index` (M,)."""
    features = []
    for chunk in index.split(IMAGES_AT_ONCE):
        features.append(method.embed(viewer(chunk)))
        between()
    return torch.cat(features)
