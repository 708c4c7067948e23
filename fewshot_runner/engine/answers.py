"""What a method answers to many tasks.

A method with a fixed embedding embeds each image that the tasks need once, and then only scores: ten thousand
episodes cost little more than their images. Any other method classifies episode by episode, and so does one whose
batch norm looks at the episode.

Shapes: E episodes, S support images, Q queries, N ways, M images needed, B images.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fewshot_runner.data.batch import Episode
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.methods.base import EmbeddingMethod, Method

IMAGES_AT_ONCE = 64  # more are no faster: their maps leave the cache
PAIRS_AT_ONCE = 1024
TASK_IMAGES_AT_ONCE = 1024  # of tasks that are each fitted: enough to give every core some
COMPARISONS_AT_ONCE = 1 << 17  # query-support pairs that are scored in one call, if an episode has no more of them
VALUES_AT_ONCE = 1 << 26  # of the features of episodes that are scored in one call: 256 MB in float32
MOST_COMPARISONS = 1 << 24  # of one episode in one call: 64 MB a tensor; fewer would make prototypes anew too often

Between = Callable[[], None]  # called now and then; may raise to end an evaluation early


def go_on() -> None:
    """The `Between` of an evaluation that nobody ends early."""


def embeds_once(method: Method) -> bool:
    """Whether an image has the same features in every episode, so that none is embedded twice."""
    return isinstance(method, EmbeddingMethod) and method.bn_mode == "running"


def episode_logits(
    method: Method, draw: Callable[[int, int], Episode], n_episodes: int, viewer: AnyViewer, between: Between
) -> Iterator[tuple[Episode, Tensor]]:
    """Chunks of episodes, as indices or features, with their logits (E, Q, N).

    `draw(start, stop)` gives episodes of indices. The size of a chunk depends on the shape of the episodes and of the
    features alone, as last bits may.
    """
    if not embeds_once(method):
        some = draw(0, 1)
        chunk = max(1, TASK_IMAGES_AT_ONCE // (some.support.shape[1] + some.query.shape[1]))
        for start in range(0, n_episodes, chunk):
            episode = draw(start, min(start + chunk, n_episodes))
            yield episode, method.classify(episode.map(viewer).to(viewer.device))
            between()
        return
    episodes = draw(0, n_episodes)
    n_support, n_query = episodes.support.shape[1], episodes.query.shape[1]
    drawn = torch.cat([episodes.support, episodes.query], dim=1)  # (E, S + Q)
    needed, position = drawn.unique(return_inverse=True)  # (M,), (E, S + Q)
    features = embed_all(method, viewer, needed, between)  # (M, ...)
    positions = replace(episodes, support=position[:, :n_support], query=position[:, n_support:])
    chunk = episodes_at_once(n_support, n_query, features)
    for start in range(0, n_episodes, chunk):
        embedded = positions[start : start + chunk].to(features.device).map(features.__getitem__)
        yield embedded, _score(method, embedded, between)


def episodes_at_once(n_support: int, n_query: int, features: Tensor) -> int:
    """How many episodes are scored in one call, whose images are rows of `features` (M, ...)."""
    n_values = (n_support + n_query) * features[0].numel()
    return max(1, min(COMPARISONS_AT_ONCE // (n_support * n_query), VALUES_AT_ONCE // n_values))


def _score(method: EmbeddingMethod, episodes: Episode, between: Between) -> Tensor:
    """Features to logits (E, Q, N); some queries at a time where there are many and none of them sees another.

    A method that does not compare pairs learns from the support in each call, and scores all queries in one.
    """
    n_episodes, n_query = episodes.query.shape[:2]
    n_support = episodes.support.shape[1]
    at_once = max(1, MOST_COMPARISONS // (n_episodes * n_support)) if method.compares_pairs else n_query
    logits = []
    for some in episodes.query.split(at_once, dim=1):
        logits.append(method.score(episodes.support, episodes.support_labels, some, episodes.n_way))
        between()
    return torch.cat(logits, dim=1)


def embed_all(method: EmbeddingMethod, viewer: AnyViewer, index: Tensor, between: Between = go_on) -> Tensor:
    """Features (M, ...) of the images at `index` (M,)."""
    return _over_images(method.embed, viewer, index, between)


def recognise_all(method: Method, viewer: AnyViewer, index: Tensor, between: Between = go_on) -> Tensor:
    """Logits (M, n_classes) of a classifier's trained head for the images at `index` (M,)."""
    return _over_images(method.recognise, viewer, index, between)


def _over_images(network: Callable[[Tensor], Tensor], viewer: AnyViewer, index: Tensor, between: Between) -> Tensor:
    outputs = []
    for chunk in index.split(IMAGES_AT_ONCE):
        outputs.append(network(viewer(chunk)))
        between()
    return torch.cat(outputs)


def compare_pairs(
    method: EmbeddingMethod, viewer: AnyViewer, first: Tensor, second: Tensor, between: Between
) -> Tensor:
    """(P,) similarities of the images at `first` (P,) and `second` (P,): one-way one-shot episodes."""
    needed, position = torch.stack([first, second]).unique(return_inverse=True)  # (M,), (2, P)
    features = embed_all(method, viewer, needed, between)  # (M, ...)
    similarities = []
    for support, query in zip(*(part.split(PAIRS_AT_ONCE) for part in position), strict=True):
        label = torch.zeros(len(support), 1, dtype=torch.long, device=features.device)
        scores = method.score(features[support][:, None], label, features[query][:, None], 1)  # (P, 1, 1)
        similarities.append(scores.flatten().float())
        between()
    return torch.cat(similarities)
