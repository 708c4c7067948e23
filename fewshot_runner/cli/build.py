"""From a plain config to the parts of a run: the only place that knows which names in it become objects."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fewshot_runner.cli.arguments import check_arguments, nearest
from fewshot_runner.cli.evaluation_plan import EvaluationPlan
from fewshot_runner.cli.optimizer import make_optimizer
from fewshot_runner.cli.protocols import KINDS, Protocols
from fewshot_runner.cli.schema import Config, EpisodeConfig, EvalConfig, MethodConfig, PublishedConfig, TestConfig
from fewshot_runner.cli.targets import ALLOWED_TARGETS, make, target_of
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.loader import Augmentation, TrainingLoader, Viewer
from fewshot_runner.data.source import PARTS, FixedRuns, Source
from fewshot_runner.data.store import Progress
from fewshot_runner.data.transforms import Chain
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Experiment, Trainer
from fewshot_runner.engine.features import FeatureViewer, View
from fewshot_runner.engine.optimizer import uncompiled
from fewshot_runner.engine.protocols.base import Protocol
from fewshot_runner.engine.stopping import EarlyStopping
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import Classifier, Method
from fewshot_runner.models.batch_norm import takes_single_images
from fewshot_runner.models.precomputed import Precomputed
from fewshot_runner.models.pretrained import standardised_otherwise, trained_by_others
from fewshot_runner.randomness import torch_seed


class Builder:
    """Builds the parts of one run. What can be told to be wrong from the config alone is refused before data are read.

    `config` is plain values, as composed; `say_progress` is told how far the decoding of images is. `network` is the
    backbone of the method made last, whatever the method calls it.
    """

    network: nn.Module

    def __init__(self, config: Mapping[str, Any], *, say_progress: Progress | None = None) -> None:
        check_arguments(Config, config, key="")
        self.config = Config(**config)
        self.trusted = (*ALLOWED_TARGETS, *self.config.trusted_packages)
        self.say_progress = say_progress
        for section, kind in (("episode", EpisodeConfig), ("eval", EvalConfig), ("trainer", Trainer),
                              ("method", MethodConfig)):  # fmt: skip
            check_arguments(kind, getattr(self.config, section), key=section)
        self.trainer = Trainer(**self.config.trainer)
        self.own_test = TestConfig(**self.config.episode, **self.config.eval)
        self._check_components()
        check_arguments(Hardware, self.config.hardware, key="hardware")
        self.hardware = Hardware(**self.config.hardware)

    def _check_components(self) -> None:
        """Every `_target_` and its keys, without making any: a misspelt optimiser is refused before images are read."""
        method = self.config.method
        components = [
            ("model", self.config.model, ["facts"]),
            ("method.learner", method["learner"], ["facts", "backbone"]),
            ("method.sampler", method["sampler"], ["classes", "seed", "stream"]),
            ("method.optimizer", method["optimizer"], ["params"]),
            ("method.schedule", method["schedule"], []),
        ]
        if (momentum := method.get("momentum")) is not None:
            components.append(("method.momentum", momentum, []))
        for key, described, supplied in components:
            target, arguments = target_of(described, key, self.trusted)
            check_arguments(target, arguments, key=key, supplied=supplied)
        if self.config.published is not None:
            check_arguments(PublishedConfig, self.config.published, key="published")
        dataset = self._dataset_config()
        check_arguments(Dataset, dataset, key="dataset", supplied=["progress", "keep"])
        for name, test in (dataset.get("tests") or {}).items():
            if test is not None:
                own = {**self.config.episode, **self.config.eval}
                check_arguments(TestConfig, {**own, **test}, key=f"dataset.tests.{name}")
                replace(self.own_test, **test)  # refuses what no test can be
        if self.own_test.protocol == "runs":
            self.own_test = replace(self.own_test, runs=self._named_runs(self.own_test.runs)[0])

    def _dataset_config(self) -> dict[str, Any]:
        """What `Dataset` takes: without `runs`, which one protocol reads, and the short names of the source's keys.

        A short name is `dataset.root` for `dataset.source.root`. Raises `UserError` where the source does not follow
        it: two values would stand for one thing.
        """
        described = self.config.dataset
        short = short_keys(described)
        for key in short:
            source = described["source"]
            if not _agree(described[key], source[key]):
                raise UserError(
                    f"dataset.source.{key}={source[key]}: dataset.{key}={described[key]} says otherwise, and the "
                    f"source follows it; set dataset.{key}={source[key]}"
                )
        return {key: value for key, value in described.items() if key != "runs" and key not in short}

    def _make(self, described: Any, key: str, **supplied: Any) -> Any:
        return make(described, key, trusted=self.trusted, **supplied)

    def source(self) -> Source:
        """Where the images come from; no image is read."""
        return self._make(self.config.dataset["source"], "dataset.source")

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, its images decoded at the run's resolution if they were not yet."""
        described = {key: value for key, value in self._dataset_config().items() if key != "source"}
        augment, crop = described.pop("augment", None), described.pop("crop", None)
        return Dataset(
            self.source(),
            augment=self._augmentation(augment),
            crop=None if crop is None else self._make(crop, "dataset.crop"),
            progress=self.say_progress,
            keep=self.hardware.keep,
            **described,
        )

    def _augmentation(self, described: Any) -> Augmentation | None:
        """The transforms that stand under names of their own, one after the other; null leaves one out."""
        if not isinstance(described, Mapping | None) or "_target_" in (described or {}):
            raise UserError(
                f"dataset.augment={described}: give each transform under a name of its own, as dataset.augment.warp, "
                "or null for none"
            )
        transforms = [
            self._make(each, f"dataset.augment.{name}") for name, each in (described or {}).items() if each is not None
        ]
        return Chain(transforms) if transforms else None

    def facts(self) -> Facts:
        n_way = self.config.episode["n_way"]
        if n_way == "all":
            judged_on = "train" if KINDS[self.config.eval["protocol"]].of_known_classes else "test"
            n_way = self.dataset.table(judged_on).n_classes
        n_classes = self.dataset.table("train").n_classes
        return Facts(image_shape=self.dataset.image_shape, n_classes=n_classes, n_way=n_way)

    def method(self, facts: Facts) -> Method:
        """The untrained method on its device; its initial weights follow from the seed."""
        torch.manual_seed(torch_seed(self.config.seed, "initial weights"))
        self.network = self._make(self.config.model, "model", facts=facts)
        if self.trainer.cache_features:
            self.network = Precomputed(self.network)
        method = self._make(self.config.method["learner"], "method.learner", facts=facts, backbone=self.network)
        return self.hardware.place(method, self.network)

    def experiment(self, overrides: Sequence[str] = ()) -> Experiment:
        """All of it; what `overrides`, that made the config, ask for in vain is among its remarks."""
        config, dataset = self.config, self.dataset
        self.plan.check_data(self.protocols())
        sampler = self._make(
            config.method["sampler"], "method.sampler", classes=dataset.table("train"), seed=config.seed
        )
        facts = self.facts()
        method = self.method(facts)
        self.plan.check_method(method)
        item = sampler[0]
        method.check_item(item)
        if (method.images_at_once or item.n_images) == 1:
            check_single_images(method, self.network, facts)
        view = self._features() if self.trainer.cache_features else self._images
        protocols = self.protocols(view=view)
        validation = protocols.make(self.plan.validation, "val")
        self.plan.check_monitor(self.trainer.monitor, validation)
        schedules = {"lr": self._make(config.method["schedule"], "method.schedule")}
        if (momentum := config.method.get("momentum")) is not None:
            schedules["momentum"] = self._make(momentum, "method.momentum")
        return Experiment(
            method=method,
            items=TrainingLoader(view("train"), sampler, dataset.augment, seed=config.seed),
            optimizer=self._optimizer(method, schedules),
            schedules=schedules,
            validation=validation,
            tests=lambda: self.plan.make(protocols),
            stopping=EarlyStopping(patience=self.trainer.patience, monitor=self.trainer.monitor),
            trainer=self.trainer,
            hardware=self.hardware,
            seed=config.seed,
            facts=facts,
            provenance=dataset.provenance,
            classes=dataset.table("train").names if isinstance(method, Classifier) else (),
            remarks=[*self._remarks(), *self.plan.remarks(overrides)],
            seen_classes=dataset.classes_of("train", "val"),
            seen_files=dataset.files_of("train", "val"),
        )

    def _remarks(self) -> list[str]:
        dataset = self.dataset
        remarks = dataset.remarks(searched=any(test.protocol == "retrieval" for test in self.plan.tests.values()))
        remarks += self.plan.remarks_on_images(self.protocols())
        remarks += standardised_otherwise(self.network, dataset.standardise.mean, dataset.standardise.std)
        if any(not KINDS[test.protocol].of_known_classes for test in self.plan.tests.values()):
            remarks += trained_by_others(self.network)
        return remarks

    def _images(self, part: str) -> Viewer:
        return self.dataset.viewer(part, self.hardware.device)

    def _features(self) -> View:
        """What stands in the place of images where the features of a frozen backbone are computed once."""
        dataset = self.dataset
        if any(parameter.requires_grad for parameter in self.network.parameters()):
            raise UserError(
                "trainer.cache_features=true: features stay the same only while the backbone is frozen; "
                "set model.frozen=true, or trainer.cache_features=false"
            )
        if dataset.split.rotations:
            raise UserError(
                f"trainer.cache_features=true: every image has its features once, and of dataset.split="
                f"{dataset.split.name} each is turned into four; choose another dataset.split, or set "
                "trainer.cache_features=false"
            )
        if dataset.augment is not None or dataset.crop is not None or dataset.symmetries != "none":
            raise UserError(
                "trainer.cache_features=true: features are computed once, so images cannot be changed; "
                "set dataset.augment=null, dataset.crop=null and dataset.symmetries=none"
            )
        self.plan.check_cached()
        parts = [torch.from_numpy(images) for part in PARTS if len(images := dataset.images_of(part))]
        # without symmetries, any part's images are seen alike
        viewer = FeatureViewer(self._images("val"), self.network, parts, self.hardware)
        return lambda part: viewer

    def _optimizer(self, method: Method, schedules: Mapping[str, Any]) -> Optimizer | None:
        """None where there is nothing to train, which only a run of no steps may have."""
        if any(parameter.requires_grad for parameter in method.parameters()):
            return make_optimizer(partial(self._make, adapt=uncompiled), self.config.method, method, schedules)
        if self.trainer.max_steps > 0:
            raise UserError(
                "model.frozen=true leaves nothing to train; thaw a part, give the method a layer of its own, or set "
                "trainer.max_steps=0 to evaluate the network as it is"
            )
        return None

    def tests(self, head: Sequence[str] = ()) -> dict[str, Protocol]:
        """The test protocols by name, the run's own first. Call it after training: nothing may see them before.

        `head` names the outputs of a head that was trained already: other data may have other classes.
        """
        return self.plan.make(self.protocols(head=head))

    @cached_property
    def plan(self) -> EvaluationPlan:
        dataset = self.dataset
        return EvaluationPlan(
            self.own_test, val_episodes=self.trainer.val_episodes, further=dataset.tests, split=dataset.split.name
        )

    def protocols(self, *, view: View | None = None, head: Sequence[str] = ()) -> Protocols:
        """By default on images."""
        return Protocols(
            self.dataset, self.hardware.device, viewer=view or self._images, make_runs=self._make_runs, head=head
        )

    def _make_runs(self, name: str | None) -> FixedRuns:
        name, described = self._named_runs(name)
        return self._make(described, f"dataset.runs.{name}")

    def _named_runs(self, name: str | None) -> tuple[str, Any]:
        """The fixed runs of that name, by default the first, and what describes them."""
        described = self.config.dataset.get("runs") or {}
        if not described:
            raise UserError(
                f"eval.protocol=runs: dataset={self.config.choices['dataset']} has no fixed runs; omniglot has"
            )
        name = name or next(iter(described))
        if name not in described:
            raise UserError(f"eval.runs={name}: there are no such runs{nearest(name, list(described))}")
        return name, described[name]


def check_single_images(method: Method, network: nn.Module, facts: Facts) -> None:
    """Raises `UserError` where batch norm would have a single value of each feature."""
    if not takes_single_images(network, facts.image_shape):
        key = "sampler.batch_size" if method.images_at_once is None else "learner.inner_batch"
        raise UserError(
            f"method.{key}=1: batch norm then sees one value of each feature, which has no variance; give 2"
        )


def short_keys(dataset: Mapping[str, Any]) -> set[str]:
    """The keys of a data set that stand for those of its source, as `dataset.root` does for `dataset.source.root`."""
    source = dataset.get("source")
    own = inspect.signature(Dataset).parameters.keys()
    return (dataset.keys() & source.keys()) - own if isinstance(source, Mapping) else set()


def _agree(short: Any, of_source: Any) -> bool:
    """Whether a source's value is what the short key says.

    Runs of earlier versions say a relative path in `short` alone, and nobody knows from which folder they were started.
    """
    if short == of_source or short is None or not isinstance(of_source, str):
        return short == of_source
    path, parts = Path(of_source), Path(str(short)).expanduser().parts
    return path.is_absolute() and path.parts[len(path.parts) - len(parts) :] == parts
