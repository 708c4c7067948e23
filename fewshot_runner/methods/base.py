"""The contract of a method.

Shape legend of all methods: E episodes, N ways, S support images, Q queries, D features, B images.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.errors import UserError
from fewshot_runner.models.batch_norm import normalised_by
from fewshot_runner.models.precision import at_least_float32, finest, full_precision

SUMMED_AT_ONCE = 2**13  # images of the support: their membership in thousands of classes is a large table


class Method(nn.Module, ABC):
    """What the training loop and the evaluator know of a method.

    Like `training`, `bn_mode` is set from outside. It says whose statistics batch norm uses in `classify`.
    "running": those of training. "support": those of the support images. "transductive": those of images that include
    the episode's queries as a whole. Frozen batch norm keeps to its own (see batch_norm.py).
    """

    learns_from: tuple[type, ...] = (Episode, Batch)  # what the sampler has to draw
    bn_mode: str = "running"
    takes_pairs: bool = False  # whether `loss` uses those that a sampler has chosen
    differentiates_twice: bool = False  # whether training takes gradients of gradients
    images_at_once: int | None = None  # of a pass in training; None: all that the sampler draws

    def check_item(self, item: Episode | Batch) -> None:
        """Raises `UserError` where `loss` could not use what the sampler draws; called once, before training."""
        if not isinstance(item, self.learns_from):
            kinds = {Episode: "episodes (EpisodeSampler)", Batch: "labelled batches (PKSampler, BatchSampler)"}
            wanted = " or ".join(kinds[kind] for kind in self.learns_from)
            raise UserError(
                f"method.sampler draws {kinds[type(item)]}: {type(self).__name__} learns from {wanted}; take "
                "method.sampler of another choice of method, as fsl list method=... shows it"
            )
        if isinstance(item, Batch) and item.pairs is not None and not self.takes_pairs:
            raise UserError(
                f"method.sampler chooses pairs: {type(self).__name__} uses none; take "
                "the method.sampler that fsl list method=triplet shows"
            )

    @abstractmethod
    def loss(self, batch: Episode | Batch) -> Tensor:
        """A scalar to be minimised."""

    @abstractmethod
    def classify(self, episode: Episode) -> Tensor:
        """(E, Q, N) logits. Leaves parameters, buffers, gradients and modes of `self` as they are."""

    def backward(self, batch: Episode | Batch) -> dict[str, Tensor]:
        """Adds to the gradients of the parameters and returns the step's figures as detached scalars.

        They stay on the device, so that a step never waits for it; "loss" is among them. Methods whose gradient is
        not that of one loss override this.
        """
        loss = self.loss(batch)
        with full_precision(loss):  # each gradient is as precise as its forward pass was
            loss.backward()
        return {"loss": loss.detach()}


class EmbeddingMethod(Method):
    """A method that embeds each image by itself, so that evaluation may embed once and score many episodes.

    `compares_pairs` says whether a score of a class depends on that class's support alone, so that two images can be
    compared, and a gallery searched.
    """

    backbone: nn.Module  # what `embed` passes images through, unless a method has its own `embed`
    compares_pairs: bool = True

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ...), here the features (B, D) of `self.backbone`.

        A method whose network has another name, or that does more than to ask it, overrides this.
        """
        return at_least_float32(self.backbone(images))

    @abstractmethod
    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Features (E, S, ...), labels (E, S) and features (E, Q, ...) to logits (E, Q, N)."""

    def classify(self, episode: Episode) -> Tensor:
        with evaluating(self):
            if self.bn_mode == "running":
                features = episode.map(self.embed)
            else:
                support, query = zip(*map(self._embed_alone, episode.support, episode.query), strict=True)
                features = replace(episode, support=torch.stack(support), query=torch.stack(query))
            return self.score(features.support, features.support_labels, features.query, features.n_way)

    def _embed_alone(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """(S, C, H, W) and (Q, C, H, W) of one episode to their features, normalised by its own images."""
        if self.bn_mode == "support":
            with normalised_by(self, lambda: self.embed(support)) as features:
                return features, self.embed(query)
        with normalised_by(self, lambda: self.embed(torch.cat([support, query]))) as features:
            return features[: len(support)], features[len(support) :]


class Classifier(ABC):
    """A method with a trained head: it knows the classes of training without being shown any support."""

    @abstractmethod
    def recognise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, n_classes), columns in the order of the training classes."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, and then for each submodule the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def class_means(support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
    """(E, S, ...) with labels (E, S) to the mean of each class, (E, N, ...); shots may differ between classes.

    Summed in float64, so that equal embeddings have themselves as their mean, however many they are: rounded, the sums
    of 3 and of 5 would decide what is a tie.
    """
    sums = counts = 0
    with full_precision(support):
        parts = (each.split(SUMMED_AT_ONCE, dim=1) for each in (support.flatten(2), support_labels))
        for some, labels in zip(*parts, strict=True):
            membership = nn.functional.one_hot(labels, n_way).to(finest(support))  # (E, S, N)
            sums = sums + membership.mT @ some.to(membership.dtype)  # (E, N, D)
            counts = counts + membership.sum(dim=1)[..., None]  # (E, N, 1)
    means = sums / counts
    return means.to(support.dtype).unflatten(2, support.shape[2:])  # (E, N, ...)


def round_logits(logits: Tensor, unit: Tensor | float) -> Tensor:
    """(..., N) logits around their mean, rounded to multiples of `unit`, the size of their rounding errors.

    Classes that are equal in exact arithmetic would else differ by rounding, which is not chance: one would win. `unit`
    (broadcast to the logits) has to grow and shrink with them, or true differences become ties.
    """
    with full_precision(logits):
        return ((logits - logits.mean(dim=-1, keepdim=True)) / unit).round() * unit
