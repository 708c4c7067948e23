"""Every file below conf/: it composes, with every other that it may meet, says what it is for, and builds only ours."""

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from fewshot_runner.cli import schema
from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import Composer, compose, hydra_config, parsed
from fewshot_runner.cli.compose import hydra_compose as hydra
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.cli.list import purpose
from fewshot_runner.cli.protocols import Protocols
from fewshot_runner.cli.protocols import name_of as name_of_test
from fewshot_runner.cli.targets import ALLOWED_TARGETS
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.engine.device import Hardware
from fewshot_runner.engine.experiment import Trainer
from fewshot_runner.errors import UserError

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
    config = hydra_config([f"{group}={name}", *NEEDS_PATH.get(name, [])])
    assert config.hydra.runtime.choices[group] == name
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # to which 2e-3 is a number
    content.pop("defaults", None)
    if "@package _global_" not in path.read_text().partition("\n")[0]:
        content = {group: content}
    assert content
    for place, value in leaves(content):
        if not (isinstance(value, str) and ("${" in value or value == "???")):
            assert at(config, place) == value, ".".join(place)


@pytest.mark.parametrize(
    ("section", "kind"),
    [("trainer", Trainer), ("hardware", Hardware), ("eval", schema.EvalConfig), ("episode", schema.EpisodeConfig)],
)
def test_what_an_older_run_does_not_say_is_taken_to_be_the_value_of_conf(section, kind):
    said = compose()[section]
    parameters = inspect.signature(kind).parameters
    assert parameters.keys() == said.keys()
    defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    assert defaults == {name: said[name] for name in defaults}


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


@pytest.mark.parametrize(
    ("overrides", "n_episodes"),
    [
        (["episode=5way1shot"], 10_000),
        (["episode.n_way=all"], 20),
        (["episode=closed_set", "eval.protocol=closed_set", "episode.n_shot=2"], 100),
        (["episode=closed_set", "eval.protocol=closed_set"], 1),  # one answer to each image: nothing is drawn
        (["episode.n_way=all", "eval.episodes=7"], 7),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_how_many_episodes_auto_stands_for(squares, tmp_path, overrides, n_episodes):
    config = compose([*overrides, "episode.n_query=1"])
    test = schema.TestConfig(**config["episode"], **config["eval"])
    dataset = Dataset(squares(), split="images", cache=str(tmp_path), image_size=20, channels=3)
    cpu = torch.device("cpu")
    protocols = Protocols(dataset, cpu, viewer=lambda part: dataset.viewer(part, cpu), make_runs=lambda name: None)
    protocol = protocols.make(test, "train")
    assert len(protocol) == protocol.describe()["episodes"] == n_episodes


# In ways that Hydra's order of things could make differ: the same key twice, parts of a branch, a branch as a whole,
# keys added, forced and removed, interpolations, and an experiment whose values come before those of the command line.
OVERRIDES = [
    [],
    ["seed=3"],
    ["seed=3", "seed=4"],
    ["seed=5", "method=siamese", "dataset=omniglot", "trainer.max_steps=7"],
    ["method=siamese", "seed=6", "method.optimizer.lr=0.5"],
    ["method.optimizer.lr=0.5", "method=siamese"],
    ["method.optimizer={lr:0.5}", "method.optimizer.lr=0.25"],
    ["method.optimizer.lr=0.25", "method.optimizer={lr:0.5,weight_decay:0.1}"],
    ["dataset.tests=null"],
    ["method.optimizer.lr=0.1", "method={optimizer:{lr:0.05}}"],
    ["dataset={image_size:12}", "dataset.image_size=13", "dataset=omniglot"],
    ["name='a b'", "output_dir=/tmp/x"],
    ["trainer.max_steps=${trainer.val_every}", "trainer.val_every=3"],
    ["+published.figures.x=0.5"],
    ["method.optimizer.lr=2", "++method.optimizer.lr=1"],
    ["seed=7", "~trainer.log_every"],
    ["experiment=siamese_tutorial", "episode.n_way=3"],
    ["episode.n_way=3", "experiment=siamese_tutorial", "seed=2"],
    ["dataset=folder", "dataset.path=pictures", "dataset.image_size=32"],
    ["sweep.direction=x"],
    ["trainer.max_step=2"],
    ["method=siameze"],
    ["dataset=folder"],
    ["trainer.max_steps=[1"],
    ["hydra.verbose=true"],
    ["dataset@model=glyphs"],
]


def test_a_sweep_composes_each_job_as_if_it_were_alone():
    composer = Composer()  # one for all of them, so that what one leaves behind would show in another
    outcomes = [outcome(composer, overrides) for overrides in [*OVERRIDES, *OVERRIDES]]
    assert outcomes == [outcome(compose, overrides) for overrides in [*OVERRIDES, *OVERRIDES]]
    assert sum(each.startswith("refused") for each in outcomes[: len(OVERRIDES)]) >= 5


def test_jobs_that_differ_in_values_are_composed_by_hydra_once(monkeypatch):
    calls = []
    monkeypatch.setattr("fewshot_runner.cli.compose.hydra_compose", lambda *a, **k: calls.append(a) or hydra(*a, **k))
    composer = Composer()
    for seed in range(3):
        assert composer(["method=siamese", f"seed={seed}", "trainer.max_steps=9"])["seed"] == seed
    assert len(calls) == 1
    composer(["method=reptile", "seed=0"])
    assert len(calls) == 2


def test_groups_of_a_users_own_folder_are_composed_and_not_taken_for_values(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text("defaults: [siamese]\noptimizer: {lr: 0.125}\n")
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/one.yaml").write_text("# @package trainer\nlog_every: 77\n")
    composer = Composer(tmp_path)
    for overrides in (["method=mine", "seed=1"], ["+extra=one", "seed=2"], ["method=mine", "seed=3"]):
        assert composer(overrides) == compose(overrides, config_dir=tmp_path), overrides
    assert composer(["method=mine"])["method"]["optimizer"]["lr"] == 0.125


@pytest.mark.parametrize("name", ["andré", "conf (copy)", "a,b", "a#b", "it's", "[a]", "{a}", "a=b", "~a ", "a'b\\"])
def test_a_users_own_folder_may_have_any_name(name, tmp_path):
    place = tmp_path / name
    (place / "method").mkdir(parents=True)
    (place / "method/mine.yaml").write_text("defaults: [siamese]\noptimizer: {lr: 0.125}\n")
    assert compose(["method=mine"], config_dir=place)["method"]["optimizer"]["lr"] == 0.125
    assert list(parsed(["method=glob(min*)"], config_dir=place)[0].sweep_string_iterator()) == ["mine"]


def outcome(composed_by: Callable[[list[str]], dict[str, Any]], overrides: list[str]) -> str:
    """The config as text, in which the order of keys counts, or the error."""
    try:
        return yaml.safe_dump(composed_by(overrides), sort_keys=False)
    except UserError as error:
        return f"refused: {error}"


@pytest.mark.parametrize("path", sorted((conf_dir() / "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_trap_18_what_comes_in_from_beyond_the_border_looks_like_the_pictures(path):
    """White paper around drawings, and what is at the border of photographs."""
    warp = (yaml.safe_load(path.read_text()).get("augment") or {}).get("warp") or {}
    wanted = {"omniglot": {"white"}, "glyphs": {"white"}}.get(path.stem, {"edge", "mirror"})
    assert warp.get("background") in wanted
