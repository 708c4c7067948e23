"""What Hydra and OmegaConf refuse, in the words of the command line: which key, and what to write instead."""

import difflib
import re
from collections.abc import Callable, Sequence

import yaml
from hydra.errors import OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.errors import UserError
from fewshot_runner.settings import OF_SWEEPS, flatten


def as_user_error(error: Exception, keys: Callable[[], Sequence[str]]) -> UserError:
    """Hydra's message in a few lines, with the nearest of `keys()` where one was misspelt."""
    message = str(error).strip() or str(error.__cause__)
    if found := re.search(r"Could not override '([^']+)'", message):
        key = found.group(1)
        if key.startswith(tuple(f"{group}." for group in OF_SWEEPS)):
            return UserError(f"{key}: {where_else(key)}")
        names = keys()
        if any(name == key or name.startswith(f"{key}.") for name in names):
            return UserError(
                f"{key}: the value has keys that are not there; add each as +{key}.NAME=..., or give ++{key}=..."
            )
        return UserError(f"{key}: there is no such key{nearest_key(key, names)}")
    if found := re.search(r"Could not delete from config\. '([^']+)' does not exist", message):
        key, names = found.group(1), keys()
        if key in names:
            return UserError(f"~{key}: is null already; leave this out")
        return UserError(f"~{key}: there is no such key{nearest_key(key, names)}")
    if found := re.search(r"Could not find '((?:hydra/)?[^'/]+)/([^']*)'", message):
        group, choice = found.groups()
        choices = re.findall(r"^\t(.+)$", message.partition("Config search path")[0], re.MULTILINE)
        return UserError(f"{group}={choice}: there is no such choice{nearest(choice, choices)}")
    if message.startswith("Config group override must be") and message.endswith("NoneType"):
        return UserError("a group cannot be null: give one of its choices (fsl list), or leave the group out")
    if isinstance(error, (MissingMandatoryValue, ConfigKeyError, ConfigAttributeError)):  # ???, or left out by ~key
        return UserError(f"{error.full_key} is missing; set it, as in {error.full_key}=...")
    if isinstance(error, OverrideParseException):
        return UserError(f"{error.override}: cannot be read; {how_to_write(error.override)}")
    if message.startswith("Error merging override"):
        message += f": {str(error.__cause__).strip().splitlines()[0]}"
    lines = [line for line in message.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    lines = [line for line in lines if not line.strip().startswith(("full_key:", "object_type=", "Config search path",
                                                                    "provider=", "Set the environment"))]  # fmt: skip
    where = f"{key}: " if (key := getattr(error, "full_key", None)) else ""
    return UserError(where + "\n".join(lines[:12]))


def how_to_write(override: str) -> str:
    """What to write in place of an override that Hydra cannot read, such as a test's settings: its name is no key."""
    key, _, value = override.partition("=")
    if number := re.search(r"\.(?=\d)", key):
        *above, last = key[number.end() :].split(".")
        inner = f"{last}:{value}"
        for name in reversed(above):
            inner = f"{name}:{{{inner}}}"
        return f"a key that begins with a digit stands in braces: '{key[: number.start()]}={{{inner}}}'"
    return "give key=value; special characters need two pairs of quotes, as in 'key=\"value\"'"


def where_else(key: str) -> str:
    """Of which members of its group a key is that the chosen one does not have; else the nearest of all their keys."""
    group = key.split(".")[0]
    members = {
        f"{group}={file.stem}": list(flatten(yaml.safe_load(file.read_text()), f"{group}."))
        for file in sorted((conf_dir() / group).glob("*.yaml"))
    }
    if having := [member for member, keys in members.items() if key in keys]:
        return f"belongs to {', '.join(having)}; give that as well, or leave {key} out"
    return f"there is no such key{nearest_key(key, [key for keys in members.values() for key in keys])}"


def nearest_key(key: str, known: Sequence[str]) -> str:
    """`nearest` among the dotted names of the same depth; where nothing is near, what stands beside `key`."""
    level = key.count(".") + 1
    names = list(dict.fromkeys(".".join(name.split(".")[:level]) for name in known))
    beside = [name for name in names if name.rpartition(".")[0] == key.rpartition(".")[0]]
    near = difflib.get_close_matches(key, names, n=1)
    return nearest(key, near or beside or sorted({name.split(".")[0] for name in known}))
