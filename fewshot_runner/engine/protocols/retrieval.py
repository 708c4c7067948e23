"""Identification: whose picture is this? A gallery of known identities, probes, and a label that means "none of them".

Identities are ranked by their most similar gallery image. The unknown label takes its place in the ranking at a
similarity that is fitted on validation. Five answers are allowed: the mean average precision at 5, with one right
answer a probe, is the mean of 1 / rank (Kaggle's "Humpback Whale Identification", 2019).

Shapes: G gallery images, P probes, I identities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.engine.answers import Between, embed_all
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.engine.protocols.base import Evaluation, Protocol, check_compares, check_running
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import EmbeddingMethod, Method

ANSWERS = 5
LEAST = float(np.finfo(np.float32).min)  # of a similarity that is no number
GALLERY_AT_ONCE = 512
PROBES_AT_ONCE = 1024
# A probe is worth 1 / rank; in sixtieths, whole numbers: WORTH[r - 1] at rank r, and nothing beyond.
WORTH = np.array([*(60 // rank for rank in range(1, ANSWERS + 1)), 0])


@dataclass(frozen=True, eq=False)  # known by itself, not by what it holds
class Search:
    """Probes against a gallery. `labels` (P,) number `gallery.names`; -1 for the unknown label, or not known."""

    gallery: ClassTable
    probes: np.ndarray
    labels: np.ndarray

    @classmethod
    def build(cls, gallery: ClassTable, probes: ClassTable, *, unknown: str | None) -> "Search":
        """Raises `UserError` as `check_classes` does."""
        cls.check_classes(gallery, probes, unknown=unknown)
        number = {name: label for label, name in enumerate(gallery.names)} | {unknown: -1}
        numbers = np.array([number[name] for name in probes.names])
        return cls(gallery, probes.members, numbers[probes.image_labels])

    @staticmethod
    def check_classes(gallery: ClassTable, probes: ClassTable, *, unknown: str | None) -> None:
        """Raises `UserError` where a probe's label is neither in the gallery nor `unknown`, by names alone."""
        known = {*gallery.names, unknown}
        if strangers := [name for name in probes.names if name not in known]:
            raise UserError(
                f"eval.protocol=retrieval: the class {strangers[0]!r} of a probe has no image in the gallery; choose "
                "dataset.split=retrieval, or name the label that means none of the known with dataset.unknown_label"
            )


class Retrieval(Protocol):
    """`search` is measured, `fitted_on` the validation that the unknown label's similarity is fitted on.

    Measured on validation itself the figures are a little too high, as this similarity is the best there.
    The five answers are kept for the probes of `asked`, which need no labels; `image_names` (I,) says what each image
    of the store is called.
    """

    figures = (f"map_at_{ANSWERS}", "recall_at_1", f"recall_at_{ANSWERS}")
    of_known_classes = True

    def __init__(
        self,
        search: Search,
        viewer: AnyViewer,
        *,
        fitted_on: Search,
        asked: Search,
        image_names: np.ndarray,
        unknown: str | None,
        part: str,
        bn_mode: str = "running",
    ) -> None:
        check_running(bn_mode, protocol="retrieval")
        self.search = search
        self.table = search.gallery
        self.viewer = viewer
        self.fitted_on = fitted_on
        self.asked = asked
        self.image_names = image_names
        self.unknown = unknown
        self.part = part

    @staticmethod
    def check(method: Method) -> None:
        check_compares(method, protocol="retrieval", example="triplet")

    def measure(self, method: Method, between: Between) -> Evaluation:
        searches = {self.search, self.asked} | ({self.fitted_on} if self.unknown is not None else set())
        needed = np.unique(np.concatenate([index for s in searches for index in (s.gallery.members, s.probes)]))
        features = embed_all(method, self.viewer, torch.from_numpy(needed), between)  # (M, ...), each image once

        @cache
        def similarities(search: Search) -> np.ndarray:
            gallery, probes = (features[np.searchsorted(needed, s)] for s in (search.gallery.members, search.probes))
            return identity_similarities(method, gallery, probes, search.gallery.offsets[:-1], between)

        threshold = None
        if self.unknown is not None:
            threshold = best_unknown(similarities(self.fitted_on), self.fitted_on.labels)
        ranks = right_ranks(similarities(self.search), self.search.labels, threshold)
        figures = {f"map_at_{ANSWERS}": np.where(ranks <= ANSWERS, 1 / ranks, 0.0)}
        figures |= {f"recall_at_{k}": (ranks <= k).astype(float) for k in (1, ANSWERS)}
        names, images = self.asked.gallery.names, self.image_names[self.asked.probes]
        answers = top_answers(similarities(self.asked), names, unknown=self.unknown, threshold=threshold)
        in_order = np.argsort(self.asked.probes)  # of the data set: by class, they would tell the labels
        return Evaluation(
            figures,
            self.describe(),
            unit="probes",
            further={} if threshold is None else {"threshold": threshold},
            answers={str(images[probe]): answers[probe] for probe in in_order},
        )

    def describe(self) -> dict[str, Any]:
        return {
            "protocol": "retrieval",
            "part": self.part,
            "identities": self.search.gallery.n_classes,
            "gallery": len(self.search.gallery.members),
            "probes": len(self.search.probes),
            "unknown": self.unknown,
            "episode_seed": None,
            **self.mode,
        }


def identity_similarities(
    method: EmbeddingMethod, gallery: Tensor, probes: Tensor, starts: np.ndarray, between: Between
) -> np.ndarray:
    """(P, I) similarity of each probe to the most similar image of each identity; `LEAST` where it is no number.

    Features of the gallery (G, ...) and of the probes (P, ...); the images of an identity lie together, and `starts`
    (I,) says where.
    """
    of_identities = []
    for chunk in probes.split(PROBES_AT_ONCE):  # tens of thousands against as many images take gigabytes
        of_images = []
        for images in gallery.split(GALLERY_AT_ONCE):  # each image as a class of its own
            labels = torch.arange(len(images), device=images.device)
            of_images.append(method.score(images[None], labels[None], chunk[None], len(images))[0].float().cpu())
            between()
        of_identities.append(np.maximum.reduceat(torch.cat(of_images, 1).numpy(), starts, axis=1))
    similarities = np.concatenate(of_identities).astype(float)
    return np.where(np.isnan(similarities), LEAST, similarities)


def beside_unknown(similarities: np.ndarray, threshold: float | None) -> np.ndarray:
    """(P, I) and the unknown label's similarity, where there is one, to (P, I + 1)."""
    if threshold is None:
        return similarities
    return np.concatenate([similarities, np.full((len(similarities), 1), threshold)], axis=1)


def right_ranks(similarities: np.ndarray, labels: np.ndarray, threshold: float | None) -> np.ndarray:
    """(P,) rank, from 1, of each probe's right answer; equal similarities count as ranked above it.

    `similarities` (P, I); `labels` (P,), -1 for the unknown label, which stands at similarity `threshold`.
    """
    similarities = beside_unknown(similarities, threshold)
    right = np.take_along_axis(similarities, labels[:, None], axis=1)  # -1 is the last column
    return (similarities >= right).sum(axis=1)


def best_unknown(similarities: np.ndarray, labels: np.ndarray) -> float:
    """The similarity of the unknown label for which the mean average precision is highest.

    `similarities` (P, I), `labels` (P,). Between two similarities that occur among the probes' best ones, any place
    gives the same; the middle is taken, and of several equally good ones the lowest.
    """
    most = min(ANSWERS, similarities.shape[1])
    best = -np.sort(np.partition(-similarities, most - 1, axis=1)[:, :most], axis=1)  # (P, A), falling
    values, position = np.unique(best, return_inverse=True)  # rising
    unknown = labels < 0
    risen = np.zeros(best.shape, dtype=np.int64)  # (P, A) what a probe is worth more once the place passes each value
    risen[unknown] = WORTH[:most] - WORTH[1 : most + 1]
    ranks = right_ranks(similarities, labels, None)
    found = ~unknown & (ranks <= most)
    risen[found, ranks[found] - 1] = WORTH[ranks[found]] - WORTH[ranks[found] - 1]  # where the right answer stands
    gained = np.bincount(position.ravel(), weights=risen.ravel())  # of each value, whole numbers
    k = int(np.concatenate([[0], gained.cumsum()]).argmax())  # the place lies above k values
    places = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    return float(places[k])


def top_answers(
    similarities: np.ndarray, names: Sequence[str], *, unknown: str | None, threshold: float | None
) -> list[list[str]]:
    """Of each probe (P, I) the five best identities, best first and none twice, the unknown label among them."""
    columns = [*names, str(unknown)]
    order = np.argsort(-beside_unknown(similarities, threshold), axis=1, kind="stable")[:, :ANSWERS]
    return [[columns[position] for position in row] for row in order]
