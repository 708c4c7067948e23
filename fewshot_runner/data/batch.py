"""What samplers draw and methods learn from.

The same two types carry indices, images and features: a sampler makes them with indices, `map` turns those into
images, and an embedding turns the images into features.

Shapes: E episodes, N ways, S support images, Q queries, B images, P pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot_runner.data.transfer import to_device


@dataclass(frozen=True, slots=True)
class Episode:
    """E tasks of the same size, flat with labels, so that shots may differ between classes.

    `support` is (E, S, ...) and `query` (E, Q, ...); their labels, (E, S) and (E, Q), lie in 0..n_way-1.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    n_way: int

    def map(self, function: Callable[[Tensor], Tensor]) -> "Episode":
        """Applies `function`, (B, ...) -> (B, ...), to all support and query images in one call."""
        n_episodes, n_support = self.support.shape[:2]
        n_query = self.query.shape[1]
        flat = torch.cat([self.support, self.query], dim=1).flatten(0, 1)  # (E * (S + Q), ...)
        mapped = function(flat).unflatten(0, (n_episodes, n_support + n_query))  # (E, S + Q, ...)
        return replace(self, support=mapped[:, :n_support], query=mapped[:, n_support:])

    def to(self, device: torch.device) -> "Episode":
        return Episode(
            to_device(self.support, device),
            to_device(self.support_labels, device),
            to_device(self.query, device),
            to_device(self.query_labels, device),
            self.n_way,
        )

    def __getitem__(self, chosen: slice) -> "Episode":
        """Some of the E tasks."""
        return Episode(
            self.support[chosen],
            self.support_labels[chosen],
            self.query[chosen],
            self.query_labels[chosen],
            self.n_way,
        )

    @property
    def n_images(self) -> int:
        return self.support.shape[0] * (self.support.shape[1] + self.query.shape[1])


@dataclass(frozen=True, slots=True)
class Batch:
    """Labelled images without episode structure.

    `images` (B, ...), `labels` (B,) class numbers, `groups` (B,) group numbers. `pairs` (P, 2) holds positions
    within the batch where the sampler chose pairs; None leaves the choice to the loss (all pairs, say).
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    pairs: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, images=function(self.images))

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            to_device(self.images, device),
            to_device(self.labels, device),
            to_device(self.groups, device),
            None if self.pairs is None else to_device(self.pairs, device),
        )

    @property
    def n_images(self) -> int:
        return len(self.images)
