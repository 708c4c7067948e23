"""What a sweep may choose from: for each swept key the values listed, or an interval."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override

from fewshot_runner.errors import UserError


@dataclass(frozen=True)
class Choice:
    """Values as they stand on the command line."""

    values: tuple[str, ...]

    def at(self, share: float) -> str:
        """The value at a share in [0, 1) of the way through the list."""
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; with `log` evenly spread in their logarithm, with `integer` whole ones."""

    low: float
    high: float
    log: bool
    integer: bool

    def at(self, share: float) -> str:
        """The value at a share in [0, 1) of the way."""
        low, high = (self.low, self.high + 1) if self.integer else (self.low, self.high)
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        return str(min(math.floor(value), int(self.high))) if self.integer else f"{value:.6g}"


Space = dict[str, Choice | Interval]


def space_of(overrides: Sequence[Override]) -> Space:
    """Key by key what is to be chosen, in the order that Hydra has them; an override of one value is a choice of one.

    Of a key that is given more than once the last counts. Where that is a branch of keys, which Hydra merges into what
    is there, the former ones stand for themselves before it, as deletions do.
    """
    last = {override.get_key_element(): number for number, override in enumerate(overrides)}
    space: Space = {}
    for number, override in enumerate(overrides):
        key = override.get_key_element()
        if override.is_delete():
            space[override.input_line] = Choice(())
        elif number < last[key]:
            if is_merged(overrides[last[key]]) and not override.is_sweep_override():
                space[override.input_line] = Choice(())
        elif isinstance(value := override.value(), IntervalSweep):
            space[key] = interval_of(key, value)
        elif override.is_sweep_override():
            space[key] = choice_of(key, override)
        else:
            space[key] = Choice((override.input_line.partition("=")[2],))
    return space


def choice_of(key: str, override: Override) -> Choice:
    """The values listed; shuffled ones in an order that is the same whenever they are given."""
    values = list(override.sweep_string_iterator())
    if getattr(override.value(), "shuffle", False):
        values.sort()
        random.Random(key).shuffle(values)
    return Choice(tuple(values))


def is_merged(override: Override) -> bool:
    """Whether it gives a branch of keys, or one of several."""
    value = override.value()
    return any(isinstance(each, dict) for each in (value.list if isinstance(value, ChoiceSweep) else [value]))


def interval_of(key: str, sweep: IntervalSweep) -> Interval:
    """The interval that Hydra read; raises `UserError` where no value can be drawn from it."""
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{key}=interval({low:g},{high:g}): give two finite numbers, as in interval(0,1)")
    if low > high:
        raise UserError(
            f"{key}=interval({low:g},{high:g}): give the lower end first, as {key}=interval({high:g},{low:g})"
        )
    if log and low <= 0:
        raise UserError(
            f"{key}=tag(log,interval({low:g},{high:g})): a logarithmic scale has to begin above 0; raise that end, "
            "or leave tag(log,...) out"
        )
    return Interval(low, high, log=log, integer=isinstance(low, int) and isinstance(high, int))


def given(settings: dict[str, str | None]) -> tuple[str, ...]:
    """Overrides again; a key without a value stands for itself."""
    return tuple(key if value is None else f"{key}={value}" for key, value in settings.items())


def swept_keys(space: Space) -> list[str]:
    """The keys in which jobs differ."""
    return [key for key, values in space.items() if not (isinstance(values, Choice) and len(values.values) < 2)]


def searched_keys(space: Space, search: str) -> list[str]:
    """The keys in which jobs differ; raises `UserError`, which names the `search`, where they differ in none."""
    if keys := swept_keys(space):
        return keys
    raise UserError(
        f"{search}: nothing to search, as every setting has one value; give lists or intervals, as in "
        "'method.optimizer.lr=tag(log,interval(1e-4,1e-1))'"
    )


def only_value(values: Choice | Interval) -> str | None:
    """The value of a key that does not vary; None of a deletion."""
    assert isinstance(values, Choice)
    return values.values[0] if values.values else None
