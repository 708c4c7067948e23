"""Runs that differ in nothing but the seed belong together: they are one experiment, repeated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewshot_runner.errors import UserError
from fewshot_runner.report.records import Record
from fewshot_runner.report.settings import CHOICES, SEED, compared

DATA = f"{CHOICES}dataset"  # where data lie is not compared, so that this alone may tell which they are
HASHES = ("split_hash", "images_hash", "files_hash")  # of a `Provenance`


@dataclass(frozen=True)
class Group:
    """The runs of one experiment, one a seed, in the order of the seeds. `repeats` are other runs of the same seeds:
    the same numbers again, which would make the spread across seeds look smaller than it is, or none.
    """

    records: Sequence[Record]
    repeats: Sequence[Record] = ()

    @property
    def members(self) -> list[Record]:
        return [*self.records, *self.repeats]

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
        """Whether it counts here; a repeat does not."""
        return any(record is each for each in self.records)


def group_runs(records: Iterable[Record]) -> list[Group]:
    """Groups in the order of their oldest runs. `records` come oldest first; of a seed the newest run with results
    counts, so that a failed one hides no figure.
    """
    experiments: dict[frozenset[tuple[str, str]], list[Record]] = {}
    for record in records:
        settings = compared(record.settings)
        key = frozenset((name, repr(value)) for name, value in settings.items() if makes_an_experiment(name))
        experiments.setdefault(key, []).append(record)
    return [_group(runs) for alike in experiments.values() for runs in _by_data(alike)]


def with_row_of(record: Record, groups: Sequence[Group]) -> list[Group]:
    """`groups`, and one of `record` alone where it counts in none of them: as a repeat, or as it is not among them."""
    if any(record in group for group in groups):
        return list(groups)
    others = [replace(group, repeats=[each for each in group.repeats if each is not record]) for group in groups]
    return [*others, Group([record])]


def makes_an_experiment(name: str) -> bool:
    """Whether this setting tells experiments apart: not the seed, and of group choices only the data set, as the others
    show in their own settings.
    """
    return name != SEED and (name == DATA or not name.startswith(CHOICES))


def _by_data(records: Sequence[Record]) -> list[list[Record]]:
    """Runs of the same settings on other images, or on these divided otherwise, are no repeats: `records` by the data
    of their results, or else those that they began on.

    Those that say neither belong to the newest data.
    """
    by_data: dict[str | None, list[Record]] = {}
    for record in records:
        by_data.setdefault(_data_of(record), []).append(record)
    unsaid = by_data.pop(None, [])
    newest = list(by_data.values())[-1] if by_data else by_data.setdefault(None, [])
    newest.extend(unsaid)
    return list(by_data.values())


def _data_of(record: Record) -> str | None:
    """The hashes that tell its data from others."""
    if record.results:
        data = record.results[0]
    else:
        try:
            data = record.run.read_data()
        except UserError:  # damaged
            return None
        if not isinstance(data, Mapping) or "images_hash" not in data:
            return None
    return repr([data.get(key) for key in HASHES])


def _group(records: Sequence[Record]) -> Group:
    of_seed: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: bool(record.results)):  # the one that counts comes last
        of_seed.setdefault(repr(record.seed), []).append(record)
    counting = sorted((runs[-1] for runs in of_seed.values()), key=lambda record: _place_of(record.seed))
    return Group(counting, [record for runs in of_seed.values() for record in runs[:-1]])


def _place_of(seed: Any) -> tuple[bool, float, str]:
    """Numbers in their order, then all else."""
    is_number = isinstance(seed, int | float)
    return not is_number, seed if is_number else 0, repr(seed)
