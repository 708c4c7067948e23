"""From a part of the config to the object it describes: `_target_` names its class, if that may be built at all."""

import inspect
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from hydra.utils import get_object

from fewshot_runner.cli.arguments import check_arguments
from fewshot_runner.errors import UserError

TRUST_YOURS = "add a package of yours with trusted_packages=[its_name]"
ALLOWED_TARGETS = ("fewshot_runner", "torch.optim", "torch.nn", "torchvision.models", "timm")
MODEL_FUNCTIONS = ("torchvision.models.", "timm.")  # libraries whose models are made by functions


def target_of(
    described: Any, key: str, trusted: Sequence[str] = ALLOWED_TARGETS, *, remedy: str = TRUST_YOURS
) -> tuple[Any, dict[str, Any]]:
    """The class that `_target_` names, if it is of a package in `trusted`, and the other keys.

    `key` is where the config says so. Raises `UserError`, which ends with `remedy` where the package is another.
    """
    if not isinstance(described, Mapping) or "_target_" not in described:
        raise UserError(f"{key}._target_ is missing: {key} names no class to build")
    name = described["_target_"]
    if not isinstance(name, str) or not _is_of(name, trusted):
        raise UserError(f"{key}._target_={name}: only classes of {', '.join(trusted)} are built; {remedy}")
    try:
        target = get_object(name)
    except Exception as error:
        raise UserError(f"{key}._target_={name}: {_why_not(name, error.__cause__ or error)}") from error
    # "torch.nn.modules.os.system" begins well and leads elsewhere: what counts is where the object is defined
    builds = inspect.isclass(target) or (callable(target) and name.startswith(MODEL_FUNCTIONS))
    if not builds or not _is_of(target.__module__ or "", trusted):
        raise UserError(f"{key}._target_={name}: not a class of {', '.join(trusted)}")
    return target, {str(k): v for k, v in described.items() if k != "_target_"}


def make(
    described: Any,
    key: str,
    *,
    kind: type = object,
    trusted: Sequence[str] = ALLOWED_TARGETS,
    remedy: str = TRUST_YOURS,
    adapt: Callable[[Any], Any] = lambda target: target,
    **supplied: Any,
) -> Any:
    """The object that `described` describes, of a class that is a `kind`; `adapt` may put another class in its place.

    Of `supplied`, what the constructor asks for is passed on. Raises `UserError`, as `target_of` does.
    """
    target, arguments = target_of(described, key, trusted, remedy=remedy)
    if kind is not object and not (inspect.isclass(target) and issubclass(target, kind)):
        raise UserError(f"{key}._target_={described['_target_']}: not a {kind.__name__}; {remedy}")
    target = adapt(target)
    wanted = inspect.signature(target).parameters
    supplied = {name: value for name, value in supplied.items() if name in wanted}
    check_arguments(target, arguments, key=key, supplied=list(supplied))
    try:
        return target(**arguments, **supplied)
    except UserError as error:
        raise type(error)(_with_whole_keys(str(error), key, wanted)) from error
    except ValueError as error:  # what another library refuses, such as torch a negative learning rate
        given = ", ".join(f"{key}.{name}={value}" for name, value in arguments.items())
        raise UserError(f"{key}: {error}; choose another value (now {given})") from error
    except TypeError as error:  # of a target that takes any keys and hands them on, as torchvision's models do
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in arguments:
            raise
        left = " ".join(f"~{key}.{name}" for name in arguments)
        raise UserError(
            f"{key}.{unknown[1]}={arguments[unknown[1]]}: {described['_target_']} takes no such key; leave out "
            f"those of another class, of {left}"
        ) from error


def _with_whole_keys(message: str, key: str, arguments: Container[str]) -> str:
    """`floor=2: give less` as `method.schedule.floor=2: give less`: a class does not know where a config names it."""
    told, colon, remedy = message.partition(":")
    whole = re.sub(r"(?<![^\s,])(\w+)(?==)", lambda name: f"{key}." * (name[1] in arguments) + name[1], told)
    return f"{whole}{colon}{remedy}"


def _is_of(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _why_not(name: str, error: BaseException) -> str:
    """In words, for what reason `name` could not be imported."""
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent == name.partition(".")[0]:
        return f"there is no package {absent}; install it, or set PYTHONPATH to the folder that holds it"
    reason = next(iter(str(error).splitlines()), "")
    if absent and _is_of(name, [absent]):
        return f"there is no such class ({reason})"
    return f"it cannot be imported ({type(error).__name__}: {reason})"
