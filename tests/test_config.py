"""Every file below conf/: it composes, with every other that it may meet, says what it is for, and builds only ours."""

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fewshot_runner.cli import schema
from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose, composed
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.cli.list import purpose
from fewshot_runner.cli.protocols import name_of as name_of_test
from fewshot_runner.cli.targets import ALLOWED_TARGETS

FILES = sorted(conf_dir().rglob("*.yaml"))
MEMBERS = [path for path in FILES if path.parent != conf_dir()]
GROUPS = {group: [path.stem for path in paths] for group, paths in itertools.groupby(MEMBERS, lambda p: p.parent.name)}
NEEDS_PATH = {
    "folder": ["dataset.path=pictures"],
    "own_pictures": ["dataset.path=pictures"],
    "csv": ["dataset.path=table.csv"],
}


def name_of(path: Path) -> str:
    return path.relative_to(conf_dir()).as_posix()


def test_the_files_and_groups_are_found():
    assert {"dataset", "model", "method", "episode", "hardware", "experiment"} <= GROUPS.keys()
    assert all(GROUPS.values())
    assert {"siamese", "prototypical", "pixels"} <= set(GROUPS["method"])
    assert {"glyphs", "omniglot", "folder", "csv"} <= set(GROUPS["dataset"])


@pytest.mark.parametrize("path", MEMBERS, ids=name_of)
def test_every_file_composes_and_its_values_arrive(path):
    group, name = path.parent.name, path.stem
    config = composed([f"{group}={name}", *NEEDS_PATH.get(name, [])])
    assert config.hydra.runtime.choices[group] == name
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # to which 2e-3 is a number
    content.pop("defaults", None)
    if "@package _global_" not in path.read_text().partition("\n")[0]:
        content = {group: content}
    assert content
    for place, value in leaves(content):
        if not (isinstance(value, str) and ("${" in value or value == "???")):
            assert at(config, place) == value, ".".join(place)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_says_what_it_is_for(path):
    assert len(purpose(path)) >= 10
    assert len(purpose(path)) <= 120
    assert purpose(path).strip() == purpose(path)


@pytest.mark.parametrize(
    ("dataset", "method"), list(itertools.product(GROUPS["dataset"], GROUPS["method"])), ids=lambda value: value
)
def test_every_method_composes_with_every_dataset_and_its_keys_are_known(dataset, method):
    config = compose([f"dataset={dataset}", f"method={method}", *NEEDS_PATH.get(dataset, [])])
    assert config["choices"].items() >= {"dataset": dataset, "method": method}.items()
    assert Builder(config).config.dataset["split"]


@pytest.mark.parametrize(
    ("episode", "experiment"), [*((e, None) for e in GROUPS["episode"]), *((None, e) for e in GROUPS["experiment"])]
)
def test_every_episode_and_experiment_has_known_keys(episode, experiment):
    chosen = [f"{group}={name}" for group, name in (("episode", episode), ("experiment", experiment)) if name]
    Builder(compose([*chosen, *NEEDS_PATH.get(experiment, [])]))


def test_every_target_is_a_class_on_the_allow_list():
    entries = [entry for path in FILES for entry in leaves(yaml.safe_load(path.read_text()))]
    targets = [(place, value) for place, value in entries if place[-1] == "_target_"]
    assert len(targets) > 10
    for place, target in targets:
        module, _, name = target.rpartition(".")
        # a sweep's pruner is one of Optuna's, and no part of a run
        assert module.startswith("optuna.pruners" if place[0] == "pruner" else ALLOWED_TARGETS), target
        assert isinstance(getattr(importlib.import_module(module), name), type), target


def test_no_method_inherits_from_a_sibling():
    for name in GROUPS["method"]:
        content = yaml.safe_load((conf_dir() / "method" / f"{name}.yaml").read_text())
        assert all(isinstance(entry, dict) for entry in content.get("defaults", [])), name
        assert {"learner", "sampler", "optimizer", "schedule"} <= content["method"].keys()


def leaves(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*place, str(key)))
    else:
        yield place, content


def at(config: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        config = config[key]
    return config


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
def test_a_published_figure_stands_beside_a_test_that_is_held(experiment):
    config = compose([f"experiment={experiment}", *NEEDS_PATH.get(experiment, [])])
    own = schema.TestConfig(**config["episode"], **config["eval"])
    held = {name_of_test(own), *(name for name, test in config["dataset"]["tests"].items() if test is not None)}
    assert set((config["published"] or {"figures": {}})["figures"]) <= held
