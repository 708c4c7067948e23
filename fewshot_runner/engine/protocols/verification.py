"""Pairs of images, the same class or two: how often a threshold on the similarity is right.

Shapes: P pairs.
"""

from typing import Any

import numpy as np
import torch

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.pairs import Pairs
from fewshot_runner.data.samplers.pairs import check_pairs
from fewshot_runner.engine.answers import Between, compare_pairs
from fewshot_runner.engine.features import AnyViewer
from fewshot_runner.engine.protocols.base import Evaluation, Protocol, check_compares, check_running
from fewshot_runner.methods.base import Method


class Verification(Protocol):
    """Half of the pairs show one class, a quarter two classes of a group, a quarter classes of two groups.

    No pair comes twice: there are `pairs` of them, or fewer where the images make fewer (see `Pairs`). Pairs still
    share images, of which the interval knows nothing.

    The threshold is fitted on pairs of `fitted_on`, the classes of validation, so a test pair has no say in it;
    validation itself is measured on these pairs, and is a little too high.
    """

    figures = ("accuracy", "auc")
    uses = ("pairs", "seed")

    def __init__(
        self,
        table: ClassTable,
        viewer: AnyViewer,
        *,
        fitted_on: ClassTable,
        pairs: int,
        seed: int,
        part: str,
        bn_mode: str = "running",
    ) -> None:
        self.check_classes(table, fitted_on=fitted_on, bn_mode=bn_mode)
        self.viewer = viewer
        self.table = table
        self.part = part
        self.seed = seed
        self.pairs = self.fitting = Pairs.draw(fitted_on, n_pairs=pairs, seed=seed, stream="verification val")
        if part != "val":
            self.pairs = Pairs.draw(table, n_pairs=pairs, seed=seed, stream=f"verification {part}")

    @staticmethod
    def check_classes(table: ClassTable, *, fitted_on: ClassTable, bn_mode: str = "running") -> None:
        """Raises `UserError` where these classes make no pairs, by their counts alone."""
        check_running(bn_mode, protocol="verification")
        check_pairs(fitted_on)
        check_pairs(table)

    @staticmethod
    def check(method: Method) -> None:
        check_compares(method, protocol="verification", example="siamese")

    def measure(self, method: Method, between: Between) -> Evaluation:
        similarities = self._compare(method, self.fitting, between)
        finite = np.isfinite(similarities)
        threshold = best_threshold(similarities[finite], self.fitting.same[finite]) if finite.any() else 0.0
        if self.pairs is not self.fitting:
            similarities = self._compare(method, self.pairs, between)
        right = (similarities > threshold) == self.pairs.same
        further = {"auc": area_under_curve(similarities, self.pairs.same), "threshold": threshold}
        return Evaluation({"accuracy": right.astype(float)}, self.describe(), unit="pairs", further=further)

    def _compare(self, method: Method, pairs: Pairs, between: Between) -> np.ndarray:
        """(P,) similarities; what is no number is as wrong as can be."""
        first, second = torch.from_numpy(pairs.images).unbind(1)
        similarities = compare_pairs(method, self.viewer, first, second, between).double().cpu().numpy()
        return np.where(np.isnan(similarities), np.where(pairs.same, -np.inf, np.inf), similarities)

    def describe(self) -> dict[str, Any]:
        return {
            "protocol": "verification",
            "part": self.part,
            "pairs": len(self.pairs),
            "episode_seed": self.seed,
            **self.mode,
        }


def best_threshold(similarities: np.ndarray, same: np.ndarray) -> float:
    """The threshold t for which "same where similarity > t" is right most often, midway to the next similarity.

    Of several equally good ones the lowest. `similarities` (P,), `same` (P,) booleans.
    """
    values, position = np.unique(similarities, return_inverse=True)  # ascending
    balance = np.bincount(position, weights=np.where(same, -1, 1), minlength=len(values))  # gained by saying "no"
    gained = np.concatenate([[0], balance.cumsum()])  # over "same" for all: by refusing the lowest k values
    k = int(gained.argmax())
    if k == 0:
        return float(np.nextafter(values[0], -np.inf))
    return float(values[k - 1] if k == len(values) else (values[k - 1] + values[k]) / 2)


def area_under_curve(similarities: np.ndarray, same: np.ndarray) -> float:
    """The area under the ROC curve: how often a same-class pair is more similar than another, ties counting half."""
    from scipy.stats import rankdata  # late: commands that evaluate nothing need no scipy

    n_same, n_different = int(same.sum()), int((~same).sum())
    rank_sum = rankdata(similarities)[same].sum()
    return float((rank_sum - n_same * (n_same + 1) / 2) / (n_same * n_different))
