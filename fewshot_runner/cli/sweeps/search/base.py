"""The contract of a search."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewshot_runner.cli.sweeps.search.space import Space
from fewshot_runner.engine.stopping import Watch


@dataclass(frozen=True)
class Proposal:
    """Settings that a job is to try, as overrides; `number` counts from 0. `watch` may give the job up on its way."""

    number: int
    overrides: tuple[str, ...]
    watch: Watch | None = None


class Search(ABC):
    """Proposes settings. An adaptive one waits for the results of the former ones before it proposes the next."""

    adaptive = False

    @abstractmethod
    def proposals(self, space: Space, folder: Path) -> Iterator[list[Proposal]]:
        """What to try, with all that waits for no results in one list; what has to be remembered is kept in `folder`.

        Of an adaptive one the first list is what it has proposed before.
        """

    def settle(self, proposal: Proposal, fingerprint: str) -> None:
        """Records which job a proposal became. Raises `UserError` if an earlier session recorded another one."""
        return

    def tell(self, proposal: Proposal, state: str, value: float | None) -> None:
        """How a proposal ended (done, pruned or failed), and its best validation figure, higher being better."""
        return
