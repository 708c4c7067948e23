"""How contestants are timed against each other, and what comes of it."""

import importlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

Samples = dict[str, list[float]]  # of each contestant, one a round
FIGURES = Path(__file__).parent / "figures"


@dataclass(frozen=True)
class Bench:
    """How a benchmark runs: the threads of every contestant, and whether it is only to be seen that it works."""

    threads: int
    quick: bool = False

    def rounds(self, full: int) -> int:
        return min(full, 2) if self.quick else full

    def units(self, full: int) -> int:
        """Of work in a round."""
        return max(1, full // 20) if self.quick else full


@dataclass(frozen=True)
class Contestant:
    """`run(units)` does so many units of work."""

    run: Callable[[int], object]
    units: int = 1


@dataclass(frozen=True)
class Figure:
    """A line of the table: `value` against `target`, which it should reach from above or else from below.

    `samples` are those of all contestants, in `unit`, ours under the name `ours`; `value` is in `shown_as`. Without
    a target it is there for information.
    """

    name: str
    ours: str
    against: str
    samples: Mapping[str, Sequence[float]]
    unit: str
    value: float
    shown_as: str
    target: float | None = None
    at_least: bool = True
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def medians(self) -> dict[str, float]:
        return {contestant: statistics.median(values) for contestant, values in self.samples.items()}

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "medians": self.medians, "reached": self.reached}


def available_figures() -> list[str]:
    return sorted(path.stem for path in FIGURES.glob("*.py") if path.stem != "__init__")


def figures_of(name: str, bench: Bench) -> list[Figure]:
    torch.set_num_threads(bench.threads)
    module = importlib.import_module(f"benchmarks.figures.{name}")
    return list(module.figures(bench))


def race(contestants: Mapping[str, Contestant], *, rounds: int, warm_up: bool = True) -> Samples:
    """Seconds a unit of each contestant, who take turns; the `warm_up` is a turn of each that does not count."""
    samples: Samples = {name: [] for name in contestants}
    for round_number in range(rounds + warm_up):
        for name, contestant in contestants.items():
            began = time.perf_counter()
            contestant.run(contestant.units)
            seconds = time.perf_counter() - began
            if round_number >= warm_up:
                samples[name].append(seconds / contestant.units)
    return samples


def ratio(samples: Samples, over: str, under: str) -> float:
    """The median over the rounds of the first contestant's sample by the second's."""
    return statistics.median(a / b for a, b in zip(samples[over], samples[under], strict=True))


def fastest(samples: Samples, names: Iterable[str]) -> str:
    return min(names, key=lambda name: statistics.median(samples[name]))


def speedup(name: str, samples: Samples, *, against: str, ours: str = "fsl", target: float | None = None,
            unit: str = "s", note: str = "") -> Figure:  # fmt: skip
    """How many times as fast as `against` ours is."""
    value = ratio(samples, against, ours)
    return Figure(name, ours, against, samples, unit, value, "x", target=target, note=note)
