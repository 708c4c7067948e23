"""Random search (Bergstra and Bengio 2012, https://jmlr.org/papers/v13/bergstra12a.html)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fewshot_runner.cli.sweeps.search.base import Proposal, Search
from fewshot_runner.cli.sweeps.search.space import Space, given, only_value, searched_keys
from fewshot_runner.errors import UserError


class Random(Search):
    """Proposal k follows from the seed, k and the keys that vary, so that more `trials` add to the former ones."""

    def __init__(self, *, trials: int, seed: int) -> None:
        if trials < 1:
            raise UserError(f"sweep.trials={trials}: give 1 or more")
        if seed < 0:
            raise UserError(f"sweep.seed={seed}: give 0 or more")
        self.trials = trials
        self.seed = seed

    def proposals(self, space: Space, folder: Path) -> Iterator[list[Proposal]]:
        swept = sorted(searched_keys(space, "sweep=random"))
        fixed = {key: only_value(values) for key, values in space.items() if key not in swept}

        def proposal(number: int) -> Proposal:
            generator = np.random.default_rng([self.seed, number])
            shares = dict(zip(swept, generator.random(len(swept)).tolist(), strict=True))
            return Proposal(
                number, given({key: fixed[key] if key in fixed else space[key].at(shares[key]) for key in space})
            )

        yield [proposal(number) for number in range(self.trials)]
