"""Runs that differ in nothing but the seed belong together: they are one experiment, repeated."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewshot_runner.report.records import Record
from fewshot_runner.report.settings import SEED, compared


@dataclass(frozen=True)
class Group:
    """The runs of one experiment, one a seed, in the order of the seeds. `repeats` are older runs of the same seeds:
    the same numbers again, which would make the spread across seeds look smaller than it is.
    """

    records: Sequence[Record]
    repeats: Sequence[Record] = ()

    @property
    def settings(self) -> dict[str, object]:
        return {name: value for name, value in self.records[0].settings.items() if name != SEED}

    @property
    def seeds(self) -> list[object]:
        return [record.seed for record in self.records]

    @property
    def name(self) -> str:
        """Its run, or where its runs begin."""
        more = f" and {len(self.records) - 1} more" if len(self.records) > 1 else ""
        return f"{self.records[0].name}{more}"

    def __contains__(self, record: Record) -> bool:
        return any(record is each for each in (*self.records, *self.repeats))


def group_runs(records: Iterable[Record]) -> list[Group]:
    """Groups in the order of their oldest runs. `records` come oldest first; the newest run of a seed counts."""
    experiments: dict[frozenset[tuple[str, str]], dict[str, list[Record]]] = {}
    for record in records:
        settings = compared(record.settings)
        seed = repr(settings.pop(SEED, None))
        key = frozenset((name, repr(value)) for name, value in settings.items())
        experiments.setdefault(key, {}).setdefault(seed, []).append(record)
    return [_group(of_seed) for of_seed in experiments.values()]


def _group(of_seed: dict[str, list[Record]]) -> Group:
    records = sorted((runs[-1] for runs in of_seed.values()), key=lambda record: (str(type(record.seed)), record.seed))
    return Group(records, [record for runs in of_seed.values() for record in runs[:-1]])
