"""Composes a run's config with Hydra and hands it on as plain values."""

import copy
import os
import shlex
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fewshot_runner.cli.arguments import check_arguments, check_type
from fewshot_runner.cli.conf import conf_dir, own_configs
from fewshot_runner.cli.garbage import no_search_for_garbage
from fewshot_runner.cli.hydra_messages import as_user_error
from fewshot_runner.cli.schema import Config
from fewshot_runner.errors import UserError
from fewshot_runner.runs import SECTIONS
from fewshot_runner.settings import OF_SWEEPS, flatten

VERSION_BASE = "1.3"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
OUTSIDE = ("hydra", *OF_SWEEPS)  # of a run: how it comes about, which its own config does not say


def absolute(path: Any) -> str | None:
    """What is empty stays so, instead of meaning the current folder: a variable of the shell that is not set."""
    return path if path in (None, "") else str(Path(str(path)).expanduser().absolute())


def environment(name: str, default: str) -> str:
    """A variable of the environment; one that is empty counts as not set."""
    return os.environ.get(name) or default


OmegaConf.register_new_resolver("abspath", absolute, replace=True)
OmegaConf.register_new_resolver("env", environment, replace=True)


def compose(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> dict[str, Any]:
    """The config that `fsl train` with these overrides would run, as plain values; raises `UserError`.

    `config_dir` is a config folder of the user's own, searched beside conf/.
    """
    if config_dir is not None:
        own_configs(config_dir)
    with hydra_errors():
        config = hydra_config(overrides, config_dir=config_dir)
        return run_config(config, config.hydra.runtime.choices)


def hydra_config(overrides: Sequence[str], *, config_dir: Path | None = None) -> DictConfig:
    """What Hydra composes of these overrides, not resolved yet, with `sweep`, `launcher` and what is Hydra's own."""
    GlobalHydra.instance().clear()
    errors = hydra_errors(lambda: known_keys(overrides, config_dir))
    with errors, initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return hydra_compose("train", overrides=[*overrides, *search_path(config_dir)], return_hydra_config=True)


class Composer:
    """`compose` for many lists of overrides: those that choose the same groups share one composition by Hydra.

    That is what takes time; values of keys are then set in a copy of it, as Hydra itself does last.
    """

    def __init__(self, config_dir: Path | None = None) -> None:
        self.config_dir = config_dir
        self._bases: dict[tuple[str, ...], tuple[DictConfig, Mapping[str, Any]]] = {}

    def __call__(self, overrides: Sequence[str]) -> dict[str, Any]:
        with hydra_errors():
            read = OverridesParser.create().parse_overrides(list(overrides))
        groups = [override for override in read if self._chooses(override)]
        values = [override for override in read if override not in groups]
        if all(is_plain(override) for override in values):
            with suppress(UserError, HydraException, OmegaConfBaseException):  # `compose` says what is wrong
                return self._laid_over(tuple(override.input_line for override in groups), values)
        return compose(overrides, config_dir=self.config_dir)

    def _chooses(self, override: Override) -> bool:
        """Whether it chooses a member of a group, and gives no keys in it."""
        return is_group(override.key_or_group, self.config_dir) and not isinstance(override.value(), dict)

    def _laid_over(self, groups: tuple[str, ...], values: Sequence[Override]) -> dict[str, Any]:
        if groups not in self._bases:
            base = hydra_config(groups, config_dir=self.config_dir)
            self._bases[groups] = of_run(base), base.hydra.runtime.choices
        base, choices = self._bases[groups]
        config = copy.deepcopy(base)
        OmegaConf.set_struct(config, True)
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        return resolved(config, choices)


def is_group(key: str, config_dir: Path | None) -> bool:
    """Whether `key` names a group of configs, in conf/ or in the user's own folder."""
    places = [conf_dir(), *([] if config_dir is None else [config_dir])]
    return any((place / key).is_dir() for place in places)


def is_plain(override: Override) -> bool:
    """Whether it gives a key of the run's config another value; others add, remove, or are Hydra's own."""
    return override.type is OverrideType.CHANGE and override.package is None and not override.is_hydra_override()


def parsed(overrides: Sequence[str], *, config_dir: Path | None = None) -> list[Override]:
    """Overrides as Hydra reads them; raises `UserError`."""
    GlobalHydra.instance().clear()
    with hydra_errors(), initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        loader = Members(GlobalHydra.instance().config_loader(), config_dir)
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


class Members:
    """What glob(*) asks which members a group has: Hydra's own loader would leave those of `config_dir` out."""

    def __init__(self, loader: ConfigLoader, config_dir: Path | None) -> None:
        self.loader = loader
        self.places = search_path(config_dir)

    def get_group_options(self, group: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        return self.loader.get_group_options(group, results_filter, config_name="train", overrides=self.places)


def search_path(config_dir: Path | None) -> list[str]:
    """The override that has Hydra look for configs in `config_dir` as well: quoted, as paths have any signs in them."""
    if config_dir is None:
        return []
    place = QuotedString(f"file://{config_dir.absolute()}", Quote.single)
    return [f"hydra.searchpath=[{place.with_quotes()}]"]


def known_keys(overrides: Sequence[str] = (), config_dir: Path | None = None) -> list[str]:
    """The dotted names of all keys of the config with the groups that `overrides` choose.

    Where these cannot be composed, those of the default config.
    """
    chosen = [word for word in overrides if "=" in word and is_group(word.split("=")[0].lstrip("+"), config_dir)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        try:
            config = hydra_compose("train", overrides=[*chosen, *search_path(config_dir)])
        except (HydraException, OmegaConfBaseException, ValueError):
            config = hydra_compose("train")
    return list(flatten(OmegaConf.to_container(of_run(config))))  # names alone: values may be missing


@contextmanager
def hydra_errors(keys: Callable[[], Sequence[str]] = known_keys) -> Iterator[None]:
    """Hydra's and OmegaConf's errors as the user's; a key that was misspelt may be one of `keys()`."""
    try:
        yield
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last: Hydra's, of overrides such as =5
        raise as_user_error(error, keys) from error


def asked_of_hydra(arguments: Sequence[str]) -> Namespace:
    """What a command line asks for, as Hydra reads it: parts of names, letters in one word. Raises `UserError`."""
    asked = get_args_parser().parse_intermixed_args(arguments)
    if asked.experimental_rerun is not None:  # which unpickles a file
        raise UserError("--experimental-rerun: give the overrides of the run again, which its overrides.yaml holds")
    return asked


def run_hydra(
    config_name: str,
    program: str,
    arguments: list[str],
    task: Callable[[dict, list[str]], None],
    *,
    config_dir: Path | None = None,
) -> None:
    """Calls `task(config, overrides)` as a Hydra program does; Hydra itself answers --help, --cfg, --info and the like.

    `config_dir` is the folder that `arguments` name with --config-dir; it is only needed to suggest keys in messages.
    Sweeps are not for this function: see `fewshot_runner.cli.sweeps.multirun`.
    """
    for argument in arguments:
        if argument.lstrip("+").startswith("hydra.mode="):  # Hydra's own sweeps would leave a folder behind
            raise UserError(f"{argument}: give -m instead, as in fsl train -m seed=0,1,2")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed
    kept: list[tuple[DictConfig, DictConfig]] = []

    @hydra_main(config_path=str(conf_dir()), config_name=config_name, version_base=VERSION_BASE)
    def keep(config: DictConfig) -> None:  # what is raised in here, Hydra prints
        kept.append((config, HydraConfig.get()))

    sys.argv = [program, *arguments]
    with hydra_errors(lambda: known_keys(arguments, config_dir)), no_search_for_garbage():
        keep()
        settled = [(run_config(config, hydra.runtime.choices), hydra) for config, hydra in kept]
    for config, hydra in settled:
        if (launcher := hydra.runtime.choices["launcher"]) != "serial":  # by a choice such as hardware=slurm
            raise UserError(
                f"launcher={launcher}, which a choice brings with it, is for sweeps; give -m, as in fsl train -m "
                f"{shlex.join(hydra.overrides.task)} (one job is a sweep as well)"
            )
        task(config, list(hydra.overrides.task))


def overlay(
    config: dict[str, Any],
    overrides: Sequence[str],
    *,
    groups: Sequence[str],
    keys: Sequence[str],
    config_dir: Path | None = None,
) -> dict[str, Any]:
    """A run's saved config with overrides on top: choices of `groups`, and values of the keys in these and in `keys`.

    `config_dir` as in `compose`. Raises `UserError` for others, which would change nothing.
    """
    with hydra_errors():
        read = OverridesParser.create().parse_overrides(list(overrides))
    may = f"only {', '.join((*groups, *keys))} may change"
    for override in read:
        section = override.key_or_group.split(".")[0]
        if override.is_hydra_override():
            raise UserError(f"{override.input_line}: changes no evaluation; {may}")
        if section in config and section not in (*groups, *keys):
            raise UserError(f"{override.input_line}: a trained run keeps its {section}; {may}")
    sections = [override for override in read if override.key_or_group in (*SECTIONS, *OUTSIDE, "experiment")]
    for override in sections:
        group = override.key_or_group
        if group not in groups:
            raise UserError(f"{override.input_line}: a trained run keeps its {group}; {may}")
        if override.is_delete() or not isinstance(override.value(), str):
            raise UserError(f"{override.input_line}: give one choice of {group}; fsl list {group} shows them")
    merged = dict(config)
    chosen = [override.key_or_group for override in sections]
    of_chosen = [each.input_line for each in read if each.key_or_group.split(".")[0] in chosen]
    if chosen:
        fresh = compose(of_chosen, config_dir=config_dir)
        for group in chosen:
            merged[group] = fresh[group]
            merged["choices"] = {**merged["choices"], group: fresh["choices"][group]}
    values = [override for override in overrides if override not in of_chosen]
    GlobalHydra.instance().clear()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "saved.yaml").write_text(to_yaml(merged))
        with hydra_errors(lambda: list(flatten(merged))), initialize_config_dir(folder, version_base=VERSION_BASE):
            return OmegaConf.to_container(hydra_compose("saved", overrides=values), resolve=True)


def run_config(config: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's own config is of a composed one, `resolved`."""
    return resolved(of_run(config), choices)


def of_run(config: DictConfig) -> DictConfig:
    """A copy without what the run's own config does not say."""
    return OmegaConf.masked_copy(config, [key for key in config if key not in OUTSIDE])


def resolved(config: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Interpolations resolved and nothing of OmegaConf left; `choices` names the member taken of each group.

    Where a data set's source has an absolute path, the short key has one as well: a relative one would name other files
    from another folder.
    """
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if "experiment" in content:
        raise UserError(
            "experiment: its keys are those of the whole run: give them without experiment., and begin the YAML of an "
            "experiment of yours with the line # @package _global_"
        )
    check_arguments(Config, content, key="", supplied=["choices"])
    refuse_no_folder(content["output_dir"])
    dataset = content["dataset"]
    if isinstance(source := dataset.get("source"), dict):
        paths = [key for key in dataset.keys() & source.keys() if Path(str(source[key])).is_absolute()]
        dataset |= {key: absolute(dataset[key]) for key in paths}
    chosen = {group: choice for group, choice in choices.items() if not group.startswith(OUTSIDE) and choice}
    return {"choices": chosen, **content}


def refuse_no_folder(output_dir: Any) -> None:
    """Raises `UserError` where runs would lie in the current folder because a variable of the shell is not set, or
    nowhere.
    """
    check_type("output_dir", output_dir, str)
    if output_dir == "":
        raise UserError("output_dir= is empty; give a folder for the runs, as in output_dir=outputs")


def to_yaml(config: Any) -> str:
    return yaml.dump(config, Dumper=DUMPER, sort_keys=False, allow_unicode=True)
