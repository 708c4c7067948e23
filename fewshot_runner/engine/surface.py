"""Accuracy over ways and shots, in one pass: the images of the largest episodes are embedded once, and every smaller
episode is a part of one of those.

So neighbours on the surface share classes and images: what differs between them is the shape, not the draw.

Shapes: E episodes, N ways, K shots, S = N K support images, Q queries, D features.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.samplers import EpisodeSampler
from fewshot_runner.engine.answers import Between, embed_all, episodes_at_once
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.engine.metrics import query_accuracy
from fewshot_runner.intervals import interval
from fewshot_runner.methods.base import EmbeddingMethod

WAYS = (2, 3, 5, 8, 10, 15, 20)
SHOTS = (1, 2, 3, 5, 7, 10)
EPISODES, QUERIES = 200, 3


def surface(
    method: EmbeddingMethod,
    table: ClassTable,
    viewer: AnyViewer,
    *,
    eligible_groups: np.ndarray | None,
    seed: int,
    between: Between,
    ways: tuple[int, ...] = WAYS,
    shots: tuple[int, ...] = SHOTS,
    episodes: int = EPISODES,
) -> dict[str, Any] | None:
    """Accuracies and half-widths of their 95 % intervals over episodes, a row a number of ways, a column a number of
    shots, as far as there are classes and images enough; None where there are not for a single cell.

    `eligible_groups` are those of which one makes an episode, None for episodes across groups. There are no more ways
    than each of them has classes: else the cells would be of fewer groups than the test is.
    """
    within_group = eligible_groups is not None
    room = table.group_sizes[eligible_groups].min() if within_group else table.n_classes
    ways = tuple(n for n in ways if n <= room)
    most_shots = int(table.sizes.min()) - 1
    shots = tuple(k for k in shots if k <= most_shots)
    if not ways or not shots:
        return None
    n_query = min(QUERIES, int(table.sizes.min()) - shots[-1])
    sampler = EpisodeSampler(
        table, n_way=ways[-1], n_shot=shots[-1], n_query=n_query, within_group=within_group, seed=seed,
        stream="surface",
    )  # fmt: skip
    drawn = sampler.draw(0, episodes)
    n_support = drawn.support.shape[1]
    needed, position = torch.cat([drawn.support, drawn.query], dim=1).unique(return_inverse=True)
    features = embed_all(method, viewer, needed, between)  # (M, ...)
    support = position[:, :n_support].view(episodes, ways[-1], shots[-1])  # (E, N, K): drawn class by class
    query, query_labels = position[:, n_support:], drawn.query_labels
    accuracy, ci95 = [], []
    for n_way in ways:
        asked = query_labels < n_way  # as many in every episode
        queries, labels = (each[asked].view(episodes, n_way * n_query) for each in (query, query_labels))
        row = []
        for n_shot in shots:
            shown = support[:, :n_way, :n_shot].reshape(episodes, n_way * n_shot)
            row.append(_accuracies(method, features, shown, queries, labels, n_way))
            between()
        accuracy.append([float(each.mean()) for each in row])
        ci95.append([interval(each, unit="episodes") for each in row])
    return {
        "ways": list(ways), "shots": list(shots), "accuracy": accuracy, "ci95": ci95, "episodes": episodes,
        "n_query": n_query, "seed": seed, "within_group": within_group,
    }  # fmt: skip


def _accuracies(
    method: EmbeddingMethod, features: Tensor, support: Tensor, query: Tensor, labels: Tensor, n_way: int
) -> np.ndarray:
    """(E,) of episodes whose support (E, S) and queries (E, Q) are rows of `features`, shots class by class."""
    support_labels = torch.arange(n_way).repeat_interleave(support.shape[1] // n_way).expand_as(support)
    at_once = episodes_at_once(support.shape[1], query.shape[1], features)
    right = []
    for chunk in zip(
        *(each.to(features.device).split(at_once) for each in (support, support_labels, query)), strict=True
    ):
        shown, shown_labels, asked = chunk
        right.append(method.score(features[shown], shown_labels, features[asked], n_way).float().cpu())  # (e, Q, N)
    return query_accuracy(torch.cat(right), labels).mean(dim=-1).numpy()
