"""What a run is validated and tested on, as settings: known, checked and named before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.cli.protocols import KINDS, Protocols, ignored, name_of
from fewshot_runner.cli.schema import TestConfig
from fewshot_runner.engine.protocols.base import Protocol
from fewshot_runner.errors import UserError
from fewshot_runner.methods.base import Method

MOST_SHOWINGS = 1000  # of an image in a test, on average; tests of the built-in glyphs come to 667
IMBALANCE, IMBALANCED = 2.0, "_imbalanced"  # of the tests beside transductive ones, and what they are called


class EvaluationPlan:
    """`own` is the run's own test; `validation` the same on `val_episodes` tasks, or for fixed runs, which only test
    knows, episodes as the config describes them; `tests` are by name the own one, the `further` ones that mean anything
    under `split`, and beside each transductive one another.

    A method that sees the queries as a whole may count on as many of each class (Veilleux et al. 2021,
    https://arxiv.org/abs/2204.11181), so that such figures stand beside those of imbalanced queries.
    """

    def __init__(
        self, own: TestConfig, *, val_episodes: int, further: Mapping[str, Mapping[str, Any]], split: str
    ) -> None:
        self.own = own
        if self.own.imbalance is not None and self.own.protocol != "episodes":
            raise UserError(
                f"eval.imbalance={self.own.imbalance}: eval.protocol={self.own.protocol} draws no episodes whose "
                "queries could be imbalanced; set eval.imbalance=null"
            )
        drawn = "episodes" if self.own.protocol == "runs" else self.own.protocol
        self.validation = replace(self.own, protocol=drawn, episodes=val_episodes)
        listed = {name_of(self.own): self.own}
        self.keys = dict.fromkeys(listed, "episode")  # where the config says so, by the name of the test
        for name, changes in further.items():
            test = replace(own, **changes)
            splits = [test.split] if isinstance(test.split, str) else test.split
            if (splits is None or split in splits) and replace(test, split=None) not in listed.values():
                if name in listed:
                    raise UserError(f"dataset.tests.{name}: the run's own test is called so; choose another name")
                self.keys[name], listed[name] = f"dataset.tests.{name}", test
        self.tests: dict[str, TestConfig] = {}
        for name, test in listed.items():
            self.tests[name] = test
            beside = f"{name}{IMBALANCED}"
            transductive = test.protocol == "episodes" and test.bn_mode == "transductive"
            if transductive and test.imbalance is None and beside not in listed:
                self.keys[beside], self.tests[beside] = self.keys[name], replace(test, imbalance=IMBALANCE)

    def remarks(self, overrides: Sequence[str]) -> list[str]:
        """What overrides ask for that neither validation nor a test uses, and where validation is another task."""
        in_vain = ignored(overrides, self.own, [self.validation, *self.tests.values()])
        said = [
            f"{override}: eval.protocol={self.own.protocol} ignores {setting}, so it changes no figure"
            for setting, override in in_vain.items()
        ]
        drawn = self.validation
        if drawn.protocol != self.own.protocol:
            said.append(
                f"eval.protocol={self.own.protocol}: validation draws episodes, their shape not taken from the runs: "
                f"episode.n_way={drawn.n_way}, episode.n_shot={drawn.n_shot}, episode.n_query={drawn.n_query}, "
                f"episode.within_group={str(drawn.within_group).lower()}; set these to be like the runs"
            )
        return said

    def remarks_on_images(self, protocols: Protocols) -> list[str]:
        """That the tests have few images for their many episodes, of which alone an interval over episodes tells."""
        names = [name for name, test in self.tests.items() if protocols.showings(test, "test") > MOST_SHOWINGS]
        if not names:
            return []
        table = protocols.dataset.table("test")
        return [
            f"{', '.join(names)}: drawn from {len(table.members):,} images of {table.n_classes:,} classes, shown more "
            f"than {MOST_SHOWINGS:,} times each: the interval over episodes says nothing of other images, and more "
            "episodes add nothing"
        ]

    def make(self, protocols: Protocols) -> dict[str, Protocol]:
        """The test protocols by name. Call it after training: nothing may see them before."""
        return {name: protocols.make(test, "test") for name, test in self.tests.items()}

    def check_data(self, protocols: Protocols) -> None:
        """Raises `UserError` for what would fail after hours of training, or inflate a figure."""
        protocols.check([("episode", self.validation, "val")])
        self.check_tests(protocols)

    def check_tests(self, protocols: Protocols) -> None:
        """Raises `UserError` for tests that would fail or inflate a figure; a trained run needs no validation."""
        protocols.check([(self.keys[name], test, "test") for name, test in self.tests.items()])

    def check_method(self, method: Method) -> None:
        """Raises `UserError` where `method` cannot answer a test."""
        for test in self.tests.values():
            KINDS[test.protocol].check(method)

    def check_cached(self) -> None:
        """Raises `UserError` where a test asks for other features than those that are computed once."""
        for test in (self.validation, *self.tests.values()):
            if test.bn_mode != "running":
                raise UserError(
                    f"trainer.cache_features=true: features hold the statistics of training, so eval.bn_mode="
                    f"{test.bn_mode} cannot change them; set eval.bn_mode=running, or trainer.cache_features=false"
                )

    def check_monitor(self, monitor: str, validation: Protocol) -> None:
        """Raises `UserError` where `validation` gives no figure called `monitor`."""
        if monitor not in validation.figures:
            raise UserError(
                f"trainer.monitor={monitor}: eval.protocol={self.validation.protocol} has no such figure"
                f"{nearest(monitor, validation.figures)}"
            )
