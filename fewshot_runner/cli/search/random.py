"""Random search (Bergstra and Bengio 2012, https://jmlr.org/papers/v13/bergstra12a.html)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewshot_runner.cli.search.base import Proposal, Search
from fewshot_runner.cli.search.space import Choice, Interval, Space, given
from fewshot_runner.errors import UserError


class Random(Search):
    """Proposal k follows from the seed and k alone, so that more `trials` add to the former ones."""

    def __init__(self, *, trials: int, seed: int) -> None:
        if trials < 1:
            raise UserError(f"sweep.trials={trials}: give 1 or more")
        self.trials = trials
        self.seed = seed

    def proposals(self, space: Space, folder: Path) -> Iterator[Proposal]:
        for number in range(self.trials):
            generator = np.random.default_rng([self.seed, number])
            shares = dict(zip(sorted(space), generator.random(len(space)).tolist(), strict=True))
            drawn = {key: _at(values, shares[key]) for key, values in space.items()}
            yield Proposal(number, given(drawn))


def _at(values: Choice | Interval, share: float) -> str | None:
    if isinstance(values, Interval):
        return values.at(share)
    return values.values[int(share * len(values.values))] if values.values else None
