"""From a plain config to the parts of a run: the only place that turns names into objects."""

import inspect
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object

from fewshot_runner.cli.arguments import checked
from fewshot_runner.cli.schema import Config, EpisodeConfig, EvalConfig, MethodConfig, TestConfig
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.loader import TrainingLoader
from fewshot_runner.data.samplers import check_episode
from fewshot_runner.data.source import PARTS, FixedRuns, Source
from fewshot_runner.data.store import Progress
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Experiment, Trainer
from fewshot_runner.engine.optimizer import uncompiled
from fewshot_runner.engine.protocols import Episodes, Protocol, Runs
from fewshot_runner.engine.stopping import EarlyStopping
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import Method
from fewshot_runner.randomness import torch_seed

ALLOWED_TARGETS = ("fewshot_runner", "torch.optim", "torch.nn", "torchvision.models", "timm")
MODEL_FUNCTIONS = ("torchvision.models.", "timm.")  # libraries whose models are made by functions


class Builder:
    """Builds the parts of one run. Everything that a config can get wrong is refused here, before anything is made.

    `config` is plain values, as composed; `say_progress` is told how far the decoding of images is.
    """

    def __init__(self, config: Mapping[str, Any], *, say_progress: Progress | None = None) -> None:
        checked(Config, config, key="")
        self.config = Config(**config)
        self.trusted = (*ALLOWED_TARGETS, *self.config.trusted_packages)
        self.say_progress = say_progress
        for section, kind in (("episode", EpisodeConfig), ("eval", EvalConfig), ("trainer", Trainer),
                              ("method", MethodConfig)):  # fmt: skip
            checked(kind, getattr(self.config, section), key=section)
        self.trainer = Trainer(**self.config.trainer)
        self._check_components()
        checked(Hardware, self.config.hardware, key="hardware")
        self.hardware = Hardware(**self.config.hardware)

    def _check_components(self) -> None:
        """Every `_target_` and its keys, without making any: a misspelt optimiser is refused before images are read."""
        method = self.config.method
        for key, described, supplied in (
            ("model", self.config.model, ["facts"]),
            ("method.learner", method["learner"], ["facts", "backbone"]),
            ("method.sampler", method["sampler"], ["classes", "seed", "stream"]),
            ("method.optimizer", method["optimizer"], ["params"]),
            ("method.schedule", method["schedule"], []),
        ):
            target, arguments = self._target(described, key)
            checked(target, arguments, key=key, supplied=supplied)
        dataset = self._dataset_config()
        checked(Dataset, dataset, key="dataset", supplied=["progress", "keep"])
        for name, test in (dataset.get("tests") or {}).items():
            if test is not None:
                checked(TestConfig, {**self._own_test(), **test}, key=f"dataset.tests.{name}")

    def _dataset_config(self) -> dict[str, Any]:
        """What `Dataset` takes: without `runs`, which one protocol reads, and the short names of the source's keys.

        A short name (`dataset.root` for `dataset.source.root`) counts as one only while the source follows it.
        """
        described = self.config.dataset
        source = source if isinstance(source := described.get("source"), Mapping) else {}
        return {
            key: value
            for key, value in described.items()
            if key != "runs" and not (key in source and source[key] in (value, _absolute(value)))
        }

    def _target(self, described: Any, key: str) -> tuple[Any, dict[str, Any]]:
        """The class that `_target_` names, if it is on the allow-list, and the other keys."""
        if not isinstance(described, Mapping) or "_target_" not in described:
            raise UserError(f"{key}._target_ is missing: {key} names no class to build")
        name = described["_target_"]
        if not isinstance(name, str) or not self._is_trusted(name):
            raise UserError(
                f"{key}._target_={name}: only classes of {', '.join(self.trusted)} are built; "
                "add a package of yours with trusted_packages=[its_name]"
            )
        try:
            target = get_object(name)
        except Exception as error:
            raise UserError(f"{key}._target_={name}: there is no such class ({str(error).splitlines()[0]})") from error
        # "torch.nn.modules.os.system" begins well and leads elsewhere: what counts is where the object is defined
        builds = inspect.isclass(target) or (callable(target) and name.startswith(MODEL_FUNCTIONS))
        if not builds or not self._is_trusted(target.__module__ or ""):
            raise UserError(f"{key}._target_={name}: not a class of {', '.join(self.trusted)}")
        return target, {str(k): v for k, v in described.items() if k != "_target_"}

    def _is_trusted(self, name: str) -> bool:
        return any(name == package or name.startswith(f"{package}.") for package in self.trusted)

    def _make(self, described: Any, key: str, **supplied: Any) -> Any:
        """Builds what `described` names; of `supplied`, what the constructor asks for is passed on."""
        target, arguments = self._target(described, key)
        target = uncompiled(target)
        wanted = inspect.signature(target).parameters
        supplied = {name: value for name, value in supplied.items() if name in wanted}
        checked(target, arguments, key=key, supplied=list(supplied))
        try:
            return target(**arguments, **supplied)
        except UserError:
            raise
        except ValueError as error:  # what torch itself refuses, such as a negative learning rate
            given = ", ".join(f"{key}.{name}={value}" for name, value in arguments.items())
            raise UserError(f"{key}: {error}; choose another value (now {given})") from error

    def source(self) -> Source:
        """Where the images come from; no image is read."""
        return self._make(self.config.dataset["source"], "dataset.source")

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, its images decoded at the run's resolution if they were not yet."""
        described = {key: value for key, value in self._dataset_config().items() if key != "source"}
        if (augment := described.pop("augment", None)) is not None:
            augment = self._make(augment, "dataset.augment")
        return Dataset(self.source(), augment=augment, progress=self.say_progress, keep=self.hardware.keep, **described)

    def facts(self) -> Facts:
        n_way = self.config.episode["n_way"]
        return Facts(
            image_shape=self.dataset.image_shape,
            n_classes=self.dataset.table("train").n_classes,
            n_way=self.dataset.table("test").n_classes if n_way == "all" else n_way,
        )

    def method(self, facts: Facts) -> Method:
        """The untrained method on its device; its initial weights follow from the seed."""
        torch.manual_seed(torch_seed(self.config.seed, "initial weights"))
        backbone = self._make(self.config.model, "model", facts=facts)
        method = self._make(self.config.method["learner"], "method.learner", facts=facts, backbone=backbone)
        return self.hardware.place(method)

    def experiment(self) -> Experiment:
        config, dataset, device = self.config, self.dataset, self.hardware.device
        self._check_split()
        sampler = self._make(
            config.method["sampler"], "method.sampler", classes=dataset.table("train"), seed=config.seed
        )
        facts = self.facts()
        method = self.method(facts)
        optimizer = self._make(config.method["optimizer"], "method.optimizer", params=method.parameters())
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        shape = {**self._own_test(), "protocol": "episodes", "episodes": self.trainer.val_episodes}
        return Experiment(
            method=method,
            items=TrainingLoader(dataset.viewer("train", device), sampler, dataset.augment, seed=config.seed),
            optimizer=optimizer,
            schedule=self._make(config.method["schedule"], "method.schedule"),
            validation=self._protocol(TestConfig(**shape), "val"),
            tests=self.tests,
            stopping=EarlyStopping(patience=self.trainer.patience, monitor=self.trainer.monitor),
            trainer=self.trainer,
            hardware=self.hardware,
            seed=config.seed,
            facts=facts,
            stamp=self.stamp(),
        )

    def stamp(self) -> dict[str, Any]:
        split = self.dataset.split
        return {"dataset": self.dataset.name, "split": split.name, "split_hash": split.hash}

    def tests(self) -> dict[str, Protocol]:
        """The test protocols by name, the run's own first. Call it after training: nothing may see them before."""
        return {name: self._protocol(test, "test") for name, test in self._test_configs().items()}

    def _own_test(self) -> dict[str, Any]:
        return {**self.config.episode, **self.config.eval}

    def _test_configs(self) -> dict[str, TestConfig]:
        own = TestConfig(**self._own_test())
        tests = {name_of(own): own}
        for name, changes in self.dataset.tests.items():
            test = TestConfig(**{**self._own_test(), **changes})
            if test.split in (None, self.dataset.split.name) and test not in tests.values():
                tests[name] = test
        return tests

    def _check_split(self) -> None:
        """Refuses what would fail after hours of training, or flatter: by the counts and names of classes alone."""
        tables = {part: self.dataset.table(part) for part in PARTS}
        for part, other in (("train", "val"), ("train", "test"), ("val", "test")):
            if shared := sorted(set(tables[part].names) & set(tables[other].names)):
                raise UserError(
                    f"dataset.split={self.dataset.split.name}: {part} and {other} share classes ({shared[0]!r} and "
                    f"{len(shared) - 1} more); episodes must show classes that were never trained on: "
                    "choose a split that divides classes, such as dataset.split=random"
                )
        own = TestConfig(**self._own_test())
        checks = [("episode", own, "val")]
        checks += [
            ("episode" if test == own else f"dataset.tests.{name}", test, "test")
            for name, test in self._test_configs().items()
        ]
        for key, test, part in checks:
            if test.protocol == "episodes":
                try:
                    check_episode(
                        tables[part], n_way=test.n_way, n_shot=test.n_shot, n_query=test.n_query,
                        within_group=test.within_group, part=f"the {part} part of {self.dataset.name}",
                    )  # fmt: skip
                except UserError as error:
                    raise UserError(f"{key}.{error}") from error
            else:
                self._fixed_runs(test)

    def _protocol(self, test: TestConfig, part: str) -> Protocol:
        device = self.hardware.device
        if test.protocol == "runs":
            runs = self._fixed_runs(test)
            return Runs(runs.runs(), self.dataset.fixed_runs(runs, device), name=runs.name)
        episodes = test.episodes if test.episodes != "auto" else 20 if test.n_way == "all" else 10_000
        return Episodes(
            self.dataset.table(part), self.dataset.viewer(part, device), part=part, n_way=test.n_way,
            n_shot=test.n_shot, n_query=test.n_query, within_group=test.within_group, episodes=episodes,
            seed=test.seed,
        )  # fmt: skip

    def _fixed_runs(self, test: TestConfig) -> FixedRuns:
        described = self.config.dataset.get("runs")
        if described is None:
            raise UserError(f"eval.protocol=runs: the data set {self.dataset.name} has no fixed runs; omniglot has")
        runs = self._make(described, "dataset.runs")
        if runs.of_split != self.dataset.split.name:
            raise UserError(
                f"eval.protocol=runs: {runs.name} belongs to dataset.split={runs.of_split}; under "
                f"{self.dataset.split.name} some of its characters are trained on, and its figure would flatter"
            )
        return runs


def _absolute(path: Any) -> str:
    return str(Path(str(path)).expanduser().absolute())


def name_of(test: TestConfig) -> str:
    if test.protocol == "runs":
        return "runs"
    return f"{test.n_way}way{test.n_shot}shot" + "_within_group" * test.within_group
