"""The contract of a method.

Shape legend of all methods: E episodes, N ways, S support images, Q queries, D features, B images.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fewshot_runner.data.batch import Batch, Episode
from fewshot_runner.models.precision import full_precision


class Method(nn.Module, ABC):
    """What the training loop and the evaluator know of a method."""

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
        loss.backward()
        return {"loss": loss.detach()}


class EmbeddingMethod(Method):
    """A method that embeds each image by itself, so that evaluation may embed once and score many episodes."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ...)."""

    @abstractmethod
    def score(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Features (E, S, ...), labels (E, S) and features (E, Q, ...) to logits (E, Q, N)."""

    def classify(self, episode: Episode) -> Tensor:
        with evaluating(self):
            features = episode.map(self.embed)
            return self.score(features.support, features.support_labels, features.query, features.n_way)


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
    """(E, S, ...) with labels (E, S) to the mean of each class, (E, N, ...); shots may differ between classes."""
    membership = nn.functional.one_hot(support_labels, n_way).to(support.dtype)  # (E, S, N)
    share = membership / membership.sum(dim=1, keepdim=True)  # (E, S, N), each column sums to 1
    with full_precision(support):
        return (share.transpose(1, 2) @ support.flatten(2)).unflatten(2, support.shape[2:])  # (E, N, ...)
