"""From the settings of a test to its protocol, and what a data set must have for it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from fewshot_runner.cli.schema import TestConfig
from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.episode_limits import check_episode, check_imbalance
from fewshot_runner.data.source import PARTS, FixedRuns
from fewshot_runner.engine.features import AnyViewer, View
from fewshot_runner.engine.protocols.base import Protocol, check_running
from fewshot_runner.engine.protocols.closed_set import ClosedSet
from fewshot_runner.engine.protocols.episodes import Episodes, Runs
from fewshot_runner.engine.protocols.retrieval import Retrieval, Search
from fewshot_runner.engine.protocols.verification import Verification
from fewshot_runner.errors import UserError

KINDS: dict[str, type[Protocol]] = {
    "episodes": Episodes,
    "runs": Runs,
    "closed_set": ClosedSet,
    "verification": Verification,
    "retrieval": Retrieval,
}


class Protocols:
    """Builds protocols over one data set. `make_runs` builds the fixed runs of a name.

    `head` names the outputs of a head that was trained already, maybe on other data.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        *,
        viewer: View,
        make_runs: Callable[[str | None], FixedRuns],
        head: Sequence[str] = (),
    ) -> None:
        self.dataset = dataset
        self.device = device
        self.viewer = viewer
        self.make_runs = make_runs
        self.head = head

    def make(self, test: TestConfig, part: str) -> Protocol:
        viewer, table, bn_mode = self.viewer(part), self.dataset.table, test.bn_mode
        if test.protocol == "runs":
            runs = self._runs(test)
            return Runs(runs.runs(), self.dataset.fixed_runs(runs, self.device), name=runs.name, bn_mode=bn_mode)
        if test.protocol == "closed_set":
            return ClosedSet(
                self._known(test), table(part), viewer, n_shot=test.n_shot, episodes=n_episodes(test), seed=test.seed,
                part=part, bn_mode=bn_mode, head=self.head,
            )  # fmt: skip
        if test.protocol == "verification":
            return Verification(
                table(part), viewer, fitted_on=table("val"), pairs=test.pairs, seed=test.seed, part=part,
                bn_mode=bn_mode,
            )  # fmt: skip
        if test.protocol == "retrieval":
            return self._retrieval(part, viewer, bn_mode)
        return Episodes(
            table(part), viewer, part=part, n_way=test.n_way, n_shot=test.n_shot, n_query=test.n_query,
            within_group=test.within_group, episodes=n_episodes(test), seed=test.seed, imbalance=test.imbalance,
            bn_mode=bn_mode,
        )  # fmt: skip

    def _retrieval(self, part: str, viewer: AnyViewer, bn_mode: str) -> Retrieval:
        """Probes of validation are looked for among the training images, those of test among both.

        Where nobody has labelled the test images, the figures are those of validation, and the answers the test's.
        """
        unlabelled, unknown = self.dataset.unlabelled(), self.dataset.source.unknown_label
        searches = [Search.build(*searched, unknown=unknown) for searched in self._searched(part)]
        of_val, search = searches[0], searches[-1]
        asked = search
        if part == "test" and len(unlabelled):
            asked, part = Search(self._all_known(), unlabelled, np.full(len(unlabelled), -1)), "val"
        return Retrieval(
            search, viewer, fitted_on=of_val, asked=asked, image_names=self.dataset.store.image_names,
            unknown=unknown, part=part, bn_mode=bn_mode,
        )  # fmt: skip

    def _searched(self, part: str) -> list[tuple[ClassTable, ClassTable]]:
        """The gallery and the labelled probes of validation, and then those of test where these are asked for."""
        table = self.dataset.table
        searched = [(table("train"), table("val", unknown=True))]
        if part == "test" and not len(self.dataset.unlabelled()):
            searched.append((self._all_known(), table("test", unknown=True)))
        return searched

    def _all_known(self) -> ClassTable:
        """What a test of retrieval searches: the images of training and of validation."""
        return self.dataset.table("train").merged(self.dataset.table("val"))

    def _known(self, test: TestConfig) -> ClassTable | None:
        """The training images that a closed set is classified by; None where a head trained elsewhere answers."""
        return None if self.head and test.n_shot == "all" else self.dataset.table("train")

    def showings(self, test: TestConfig, part: str) -> float:
        """How often episodes that are drawn from a part show each of its images, on average; 0 for other tests."""
        if test.protocol != "episodes":
            return 0.0
        table = self.dataset.table(part)
        n_way = table.n_classes if test.n_way == "all" else test.n_way
        return n_episodes(test) * n_way * (test.n_shot + test.n_query) / len(table.members)

    def check(self, tests: Sequence[tuple[str, TestConfig, str]]) -> None:
        """Raises `UserError` where a test cannot be held or would give an inflated figure.

        By the counts and names of classes alone: no task is drawn, and no image viewed.

        `tests` are the key of the config, the test that stands there, and the part it is held on.
        """
        table = self.dataset.table
        for key, test, part in tests:
            if KINDS[test.protocol].of_known_classes:
                self._check_not_turned(test)
            else:
                self._check_disjoint(test)
            if test.protocol == "runs":
                self._runs(test)
            elif test.protocol == "episodes":
                check_episode(
                    table(part), n_way=test.n_way, n_shot=test.n_shot, n_query=test.n_query,
                    within_group=test.within_group, key=f"{key}.", part=f"the {part} part of {self.dataset.name}",
                )  # fmt: skip
                self._check_imbalance(key, test, part)
            elif test.protocol == "closed_set":
                ClosedSet.check_classes(
                    self._known(test), table(part), n_shot=test.n_shot, part=part, bn_mode=test.bn_mode, head=self.head,
                    key=f"{key}.",
                )  # fmt: skip
            elif test.protocol == "verification":
                Verification.check_classes(table(part), fitted_on=table("val"), bn_mode=test.bn_mode)
            elif test.protocol == "retrieval":
                check_running(test.bn_mode, protocol="retrieval")
                for gallery, probes in self._searched(part):
                    Search.check_classes(gallery, probes, unknown=self.dataset.source.unknown_label)

    def _check_not_turned(self, test: TestConfig) -> None:
        if self.dataset.symmetries != "none":
            raise UserError(
                f"dataset.symmetries={self.dataset.symmetries}: eval.protocol={test.protocol} would take every class's "
                "turned pictures for those of other classes; set dataset.symmetries=none"
            )

    def _check_imbalance(self, key: str, test: TestConfig, part: str) -> None:
        if test.imbalance is None:
            return
        table = self.dataset.table(part)
        n_way = table.n_classes if test.n_way == "all" else test.n_way
        try:
            check_imbalance(
                table, n_way=n_way, n_shot=test.n_shot, n_query=test.n_query, within_group=test.within_group,
                imbalance=test.imbalance, key=f"{key}.",
            )  # fmt: skip
        except UserError as error:
            why = "eval.bn_mode=transductive is reported for imbalanced queries as well; "
            raise UserError(f"{why if test.bn_mode == 'transductive' else ''}{error}") from error

    def _check_disjoint(self, test: TestConfig) -> None:
        names = {part: set(self.dataset.table(part).names) for part in PARTS if self.dataset.split.classes[part]}
        for part, other in combinations(names, 2):
            if shared := sorted(names[part] & names[other]):
                raise UserError(
                    f"dataset.split={self.dataset.split.name}: {part} and {other} share classes ({shared[0]!r} and "
                    f"{len(shared) - 1} more); eval.protocol={test.protocol} must show classes that were never "
                    "trained on: choose a split that divides classes, such as dataset.split=random, or "
                    "eval.protocol=closed_set for other images of the same classes"
                )

    def _runs(self, test: TestConfig) -> FixedRuns:
        runs = self.make_runs(test.runs)
        if self.dataset.split.name not in runs.of_splits:
            raise UserError(
                f"eval.protocol=runs: {runs.name} belongs to dataset.split={' or '.join(runs.of_splits)}; under "
                f"{self.dataset.split.name} some of its classes are not for testing, and its figure would be inflated"
            )
        return runs


def n_episodes(test: TestConfig) -> int:
    if test.episodes != "auto":
        return test.episodes
    if test.protocol == "closed_set":
        return 100
    return 20 if test.n_way == "all" else 10_000


def used_by(test: TestConfig) -> set[str]:
    """Which settings of episodes and tests change its figures, besides `bn_mode`."""
    settings = set(KINDS[test.protocol].uses)
    if test.protocol == "closed_set" and test.n_shot == "all":  # nothing is drawn
        settings -= {"episodes", "seed"}
    return settings


def ignored(overrides: Iterable[str], own: TestConfig, further: Collection[TestConfig] = ()) -> dict[str, str]:
    """The overrides of `episode` and `eval` that change no figure, each under the name of its setting: `own`, the test
    that they describe, does not use it, nor does one of `further` that has the same value of it.

    `n_way=all` and null ask for nothing, and are never among them.
    """
    found = {}
    for override in overrides:
        group, _, setting = override.lstrip("+~").split("=")[0].partition(".")
        setting = setting or "n_way"  # what a choice of the group is mostly about
        if group not in ("episode", "eval") or setting in ("protocol", "bn_mode"):
            continue
        value = getattr(own, setting, None)
        sharing = [own, *(test for test in further if getattr(test, setting, None) == value)]
        asks = value is not None and not (setting == "n_way" and value == "all")
        if asks and not any(setting in used_by(test) for test in sharing):
            found[setting] = override
    return found


def name_of(test: TestConfig) -> str:
    """What a test is called where the config gives it no name."""
    names: dict[str, Any] = {"runs": f"{test.runs}_runs", "verification": "verification", "retrieval": "retrieval"}
    if test.protocol == "closed_set":
        name = "closed_set" if test.n_shot == "all" else f"closed_set_{test.n_shot}shot"
    else:
        name = names.get(test.protocol) or f"{test.n_way}way{test.n_shot}shot" + "_within_group" * test.within_group
    return name + (f"_{test.bn_mode}" if test.bn_mode != "running" else "") + "_imbalanced" * bool(test.imbalance)
