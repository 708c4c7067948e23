"""What a sweep may choose from: for each swept key the values listed, or an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override


@dataclass(frozen=True)
class Choice:
    """Values as they stand on the command line."""

    values: tuple[str, ...]


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
        return str(min(int(value), int(self.high))) if self.integer else f"{value:.6g}"


Space = dict[str, Choice | Interval]


def space_of(overrides: Sequence[Override]) -> Space:
    """Key by key what is to be chosen; an override of one value is a choice of one. Later ones replace earlier."""
    space: Space = {}
    for override in overrides:
        key = override.get_key_element()
        if isinstance(value := override.value(), IntervalSweep):
            integer = isinstance(value.start, int) and isinstance(value.end, int)
            space[key] = Interval(value.start, value.end, log="log" in value.tags, integer=integer)
        elif override.is_sweep_override():
            space[key] = Choice(tuple(override.sweep_string_iterator()))
        elif override.is_delete():
            space[override.input_line] = Choice(())
        else:
            space[key] = Choice((override.get_value_element_as_str(),))
    return space


def given(settings: dict[str, str | None]) -> tuple[str, ...]:
    """Overrides again; a key without a value is a deletion and stands for itself."""
    return tuple(key if value is None else f"{key}={value}" for key, value in settings.items())


def swept_keys(space: Space) -> list[str]:
    """The keys in which jobs differ."""
    return [key for key, values in space.items() if not (isinstance(values, Choice) and len(values.values) < 2)]
