"""The settings of runs: which of them differ, and choosing runs by them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from fewshot_runner.report.config import shown
from fewshot_runner.settings import SAME_EXPERIMENT, is_below

CHOICES = "choices."
SEED = "seed"


@cache
def is_compared(name: str) -> bool:
    return not is_below(name, SAME_EXPERIMENT)


def compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the experiment that it is; null is as good as absent, as runs of another age may lack a key."""
    return {name: value for name, value in settings.items() if value is not None and is_compared(name)}


def differing(all_settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of settings that are not the same everywhere, choices of groups first.

    What a choice brings with it is told by the choice: a setting below a group counts where runs that chose alike
    differ in it.
    """
    all_settings = list(all_settings)
    names = list(dict.fromkeys(name for each in all_settings for name in each if is_compared(name)))
    different = [name for name in names if _varies([each.get(name) for each in all_settings])]
    choices = {f"{short(name)}.": name for name in different if name.startswith(CHOICES)}

    def is_told(name: str) -> bool:
        choice = choices.get(f"{name.partition('.')[0]}.")
        if choice is None:
            return False
        chosen: dict[str, set[str]] = {}
        for each in all_settings:
            chosen.setdefault(str(each.get(choice)), set()).add(str(each.get(name)))
        return all(len(values) == 1 for values in chosen.values())

    told = list(choices.values())
    return told + [name for name in different if name not in told and not is_told(name)]


def _varies(values: Sequence[Any]) -> bool:
    """Whether they read differently; most are one object, as what configs have in common is parsed once."""
    first = values[0]
    return any(value is not first and str(value) != str(first) for value in values)


def short(name: str) -> str:
    """ "choices.method" is called "method"."""
    return name.removeprefix(CHOICES)


def either(text: str) -> list[str]:
    """The values that "a,b" names on the command line: a, b, and what itself is called so."""
    return [text, *parts(text)]


def parts(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


def matches(value: Any, wanted: Sequence[str]) -> bool:
    """Whether `value` is one of those that the command line names."""
    return any(_is_written(value, text) for text in wanted)


def _is_written(value: Any, text: str) -> bool:
    """Numbers may be written in any way (0.002, 2e-3), lists with spaces or without."""
    if value is None:
        return text in ("null", "none", "-", "")
    if text in (shown(value), str(value)):
        return True
    if isinstance(value, list) and value:
        inner = [part.strip() for part in parts(text[1:-1])]
        return text == f"[{text[1:-1]}]" and len(inner) == len(value) and all(map(_is_written, value, inner))
    return isinstance(value, int | float) and not isinstance(value, bool) and value == _number(text)


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
