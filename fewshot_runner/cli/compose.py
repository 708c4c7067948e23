"""Composes a run's config with Hydra and hands it on as plain values."""

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra import main as hydra_main
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.errors import RunFailed, UserError
from fewshot_runner.report.config import flatten

VERSION_BASE = "1.3"
OmegaConf.register_new_resolver("abspath", lambda path: str(Path(path).expanduser().absolute()), replace=True)


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config that `fsl train` with these overrides would run, as plain values; raises `UserError`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        try:
            config = hydra_compose("train", overrides=list(overrides), return_hydra_config=True)
            return plain(config, config.hydra.runtime.choices)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise as_user_error(error) from error


def run_hydra(config_name: str, program: str, arguments: list[str], task: Callable[[dict, list[str]], None]) -> None:
    """Calls `task(config, overrides)` as a Hydra program does: once, or with -m once a combination.

    Hydra itself answers --help, --cfg, --info and the like. In a sweep, a job that fails neither stops the others nor
    hides: `SweepFailed` names it at the end.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed
    failures: list[tuple[list[str], Exception]] = []

    @hydra_main(config_path=str(conf_dir()), config_name=config_name, version_base=VERSION_BASE)
    def hydra_task(config: DictConfig) -> None:
        hydra = HydraConfig.get()
        overrides = list(hydra.overrides.task)
        try:
            task(plain(config, hydra.runtime.choices), overrides)
        except Exception as error:
            if isinstance(error, HydraException | OmegaConfBaseException):
                error = as_user_error(error)
            if hydra.mode is RunMode.MULTIRUN and isinstance(error, UserError | RunFailed):
                print(f"fsl: {error}", file=sys.stderr)
            failures.append((overrides, error))

    sys.argv = [program, *arguments]
    try:
        hydra_task()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last: Hydra's, of overrides such as =5
        raise as_user_error(error) from error
    if failures and not {"-m", "--multirun"} & set(arguments):
        raise failures[0][1]
    if failures:
        raise SweepFailed("\n".join(f"failed: {' '.join(given)}: {error}" for given, error in failures))


class SweepFailed(RunFailed):
    """Some jobs of a sweep failed; the others ran."""

    exit_code = 3


def overlay(config: dict[str, Any], overrides: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """A run's saved config with overrides on top: choices of `groups`, and values of keys that exist."""
    choices = [
        o for o in overrides if "=" in o and "." not in o.split("=")[0] and (conf_dir() / o.split("=")[0]).is_dir()
    ]
    fixed = [choice for choice in choices if choice.split("=")[0] not in groups]
    if fixed:
        raise UserError(f"{fixed[0]}: a trained run keeps its {fixed[0].split('=')[0]}; {', '.join(groups)} may change")
    merged = dict(config)
    chosen = [choice.split("=")[0] for choice in choices]
    of_chosen = [o for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0] in chosen]
    if choices:
        composed = compose(of_chosen)
        for group in chosen:
            merged[group] = composed[group]
            merged["choices"] = {**merged["choices"], group: composed["choices"][group]}
    values = [override for override in overrides if override not in of_chosen]
    GlobalHydra.instance().clear()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "saved.yaml").write_text(to_yaml(merged))
        with initialize_config_dir(folder, version_base=VERSION_BASE):
            try:
                return OmegaConf.to_container(hydra_compose("saved", overrides=values), resolve=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise as_user_error(error, list(flatten(merged))) from error


def plain(config: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Interpolations resolved and nothing of OmegaConf left; `choices` names the member taken of each group."""
    content = {key: value for key, value in config.items_ex(resolve=False) if key not in ("experiment", "hydra")}
    content = OmegaConf.to_container(OmegaConf.masked_copy(config, list(content)), resolve=True, throw_on_missing=True)
    chosen = {group: choice for group, choice in choices.items() if not group.startswith("hydra") and choice}
    return {"choices": chosen, **content}


def as_user_error(error: Exception, keys: Sequence[str] | None = None) -> UserError:
    """Hydra's message in a few lines, with the nearest of `keys` (the default config's) where one was misspelt."""
    message = str(error).strip() or str(error.__cause__)
    if found := re.search(r"Could not override '([^']+)'", message):
        key = found.group(1)
        return UserError(f"{key}: there is no such key{nearest_key(key, known_keys() if keys is None else keys)}")
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"{error.full_key} is missing; set it, as in {error.full_key}=...")
    if isinstance(error, OverrideParseException):
        return UserError(f"{error.override}: cannot be read; give key=value, in quotes where the value has signs in it")
    if message.startswith("Error merging override"):
        message += f": {str(error.__cause__).strip().splitlines()[0]}"
    lines = [line for line in message.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    lines = [line for line in lines if not line.strip().startswith(("full_key:", "object_type=", "Config search path",
                                                                    "provider=", "Set the environment"))]  # fmt: skip
    where = f"{key}: " if (key := getattr(error, "full_key", None)) else ""
    return UserError(where + "\n".join(lines[:12]))


def nearest_key(key: str, known: Sequence[str]) -> str:
    """`nearest` among the dotted names of the same depth; where nothing is near, what stands beside `key`."""
    level = key.count(".") + 1
    names = list(dict.fromkeys(".".join(name.split(".")[:level]) for name in known))
    beside = [name for name in names if name.rpartition(".")[0] == key.rpartition(".")[0]]
    near = difflib.get_close_matches(key, names, n=1)
    return nearest(key, near or beside or sorted({name.split(".")[0] for name in known}))


def known_keys() -> list[str]:
    """The dotted names of all keys of the default config."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return [key for key in flatten(plain(hydra_compose("train"), {})) if key != "choices"]


def to_yaml(config: Any) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
