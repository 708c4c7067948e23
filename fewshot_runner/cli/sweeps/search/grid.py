"""Every combination."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from fewshot_runner.cli.sweeps.search.base import Proposal, Search
from fewshot_runner.cli.sweeps.search.space import Interval, Space, given
from fewshot_runner.errors import UserError


class Grid(Search):
    """The first key changes slowest, as in nested loops."""

    def proposals(self, space: Space, folder: Path) -> Iterator[list[Proposal]]:
        for key, values in space.items():
            if isinstance(values, Interval):
                raise UserError(
                    f"{key}: an interval has no end of values; list some, as {key}={values.at(0)},{values.at(0.5)}, "
                    "or set sweep=random or sweep=optuna"
                )
        choices = [values.values or (None,) for values in space.values()]
        combinations = enumerate(itertools.product(*choices))
        yield [Proposal(number, given(dict(zip(space, values, strict=True)))) for number, values in combinations]
