"""The contract of a search."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewshot_runner.cli.search.space import Space


@dataclass(frozen=True)
class Proposal:
    """Settings that a job is to try, as overrides; `number` counts from 0."""

    number: int
    overrides: tuple[str, ...]


class Search(ABC):
    """Proposes settings one after the other. An adaptive one waits for results before it proposes the next."""

    adaptive = False

    @abstractmethod
    def proposals(self, space: Space, folder: Path) -> Iterator[Proposal]:
        """What to try; what has to be remembered is kept in `folder`."""

    def tell(self, proposal: Proposal, value: float | None) -> None:
        """The figure that a proposal came to on validation, higher being better; None where it failed."""
        return
