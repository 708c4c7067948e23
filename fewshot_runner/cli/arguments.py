"""Checks what a config gives a constructor against the constructor's own signature, before anything is made."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

from fewshot_runner.errors import UserError


def check_arguments(
    target: Callable[..., Any], given: Mapping[str, Any], *, key: str, supplied: Sequence[str] = ()
) -> None:
    """Raises `UserError` where `given` has a key that `target` does not take, lacks one, or has one of a wrong type.

    `key` is where the config says so ("method.optimizer"); `supplied` are parameters that the program fills in.
    """
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    allowed = [name for name in parameters if name not in (*supplied, "self")]
    prefix = f"{key}." if key else ""
    for name, value in given.items():
        if name not in allowed:
            if takes_any and name not in supplied:
                continue
            hint = nearest(name, allowed)
            more = "" if hint.endswith("?") else f"; or leave it out: ~{prefix}{name}"
            raise UserError(f"{prefix}{name}={_show(value)}: there is no such key{hint}{more}")
        check_type(f"{prefix}{name}", value, hints.get(name, Any))
    for name in allowed:
        parameter = parameters[name]
        required = parameter.default is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        if required and name not in given:
            raise UserError(f"{prefix}{name} is missing; set it, as in {prefix}{name}=...")


def check_type(key: str, value: Any, hint: Any) -> None:
    """Raises `UserError` where the value of `key` is none that may stand where `hint` is annotated."""
    if not _fits(value, hint):
        raise UserError(f"{key}={_show(value)}: give {_describe(hint)}{_as_text(key, value, hint)}")


def nearest(name: str, known: Sequence[str]) -> str:
    """ "; did you mean X?", or all that are known where nothing is near."""
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"; did you mean {close[0]}?"
    return f"; choose one of: {', '.join(sorted(known))}" if known else "; it takes no keys"


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that only a type checker can read
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value may stand where `hint` is annotated; True for what a config cannot judge."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if hint is type(None):
        return value is None
    if origin in (list, tuple, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(_fits(v, h) for v, h in zip(value, inner, strict=True))
        return not inner or all(_fits(item, inner[0]) for item in value)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return isinstance(value, Mapping) and (not inner or all(_fits(item, inner[1]) for item in value.values()))
    if inspect.isclass(hint):  # an object that the config describes or that was built from it
        return isinstance(value, (hint, Mapping))
    return True


def _describe(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in inner)
    if origin is Literal:
        return "one of " * (len(inner) > 1) + ", ".join(str(option) for option in inner)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if hint in names:
        return names[hint]
    if origin in (list, tuple, Sequence):
        return f"a list ({', '.join(_describe(h) for h in inner if h is not Ellipsis)})"
    if origin in (dict, Mapping):
        return "a group of keys"
    return "a group of keys with _target_" if inspect.isclass(hint) else str(hint)


def _as_text(key: str, value: Any, hint: Any) -> str:
    """How to write what is text and looks like something else."""
    wanted = hint is str or str in typing.get_args(hint)
    return f"; as text it is written \"{key}='{_show(value)}'\"" * (wanted and isinstance(value, int | float))


def _show(value: Any) -> str:
    """As YAML has it."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
