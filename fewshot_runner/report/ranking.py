"""Experiments in the order of their results: one ranking for each list of tasks, so that all in it can be paired.

What was measured in another way (protocol, split, mode, way, shot, episode seed) stands in another ranking. Episodes
of one seed are the same however many of them were drawn, so runs with more of them are compared on those they share.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fewshot_runner.errors import UserError
from fewshot_runner.intervals import LEVEL, interval, t_interval
from fewshot_runner.report.groups import Group, group_runs, with_row_of
from fewshot_runner.report.measured import Test, names_apart, test_of
from fewshot_runner.report.power import with_needs
from fewshot_runner.report.records import Record, read_record
from fewshot_runner.report.results import figure_of
from fewshot_runner.report.statistics import Difference, count_tests, holm, paired_difference, unpaired_difference
from fewshot_runner.report.tasks import read_tasks
from fewshot_runner.runs import RunFolder


@dataclass(frozen=True, eq=False)
class Row:
    """An experiment in a ranking. `figures` (R, T) are a row a seed, None where a run's tasks cannot be read.

    `ci95` is half the width of the interval over tasks, `ci95_seeds` of that over seeds, `sd_seeds` the standard
    deviation of the runs' means.
    """

    group: Group
    test: Test
    results: Sequence[Mapping[str, Any]]
    figures: np.ndarray | None
    mean: float
    ci95: float | None
    sd_seeds: float | None = None
    ci95_seeds: float | None = None
    difference: Difference | None = None
    is_reference: bool = False

    @property
    def n_tasks(self) -> int | None:
        return None if self.figures is None else self.figures.shape[1]


@dataclass(frozen=True)
class Ranking:
    """Rows, best first; `forced` where they are of different tests and so not comparable. `reference` is the row that
    others are compared with: the best, or the one of `--baseline`; None where that has no result here.
    """

    tests: Sequence[Test]
    rows: Sequence[Row]
    reference: Row | None
    forced: bool = False
    against_baseline: bool = False

    @cached_property
    def has_seeds(self) -> bool:
        """Whether some experiment was repeated with another seed."""
        return any(len(row.results) > 1 for row in self.rows)

    @cached_property
    def n_tasks(self) -> int | None:
        """Where all rows have as many."""
        counts = {row.n_tasks for row in self.rows}
        return counts.pop() if len(counts) == 1 else None

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What each test is called beside the others, by its key."""
        return names_apart(self.tests)

    @property
    def details(self) -> list[str]:
        """What all figures of the ranking have in common."""
        [test] = self.tests
        return test.measured_over(self.n_tasks)

    @property
    def title(self) -> str:
        return "different tests in one ranking" if self.forced else self.tests[0].title


def rank(
    records: Sequence[Record],
    *,
    baseline: Record | None = None,
    forced: bool = False,
    wanted: Callable[[Mapping[str, Any]], bool] = lambda result: True,
) -> list[Ranking]:
    """The rankings of all results that are `wanted`, in the order in which their tests first occur.

    A `baseline` that does not count among `records` (not one of them, or an older run of the same seed) has a row of
    its own: the others are compared with the run that was named, and with no other.
    """
    groups = group_runs(records)
    if baseline is not None:
        groups = with_row_of(baseline, groups)
    tests: dict[str, Test] = {}
    rows: dict[str, list[Row]] = {}
    for group in groups:
        answers: dict[str, dict[int, tuple[Record, Mapping[str, Any]]]] = {}  # by test and run
        for record in (*group.repeats, *group.records):  # of a seed, the run that counts comes last
            for key, (test, result) in results_by_test(filter(wanted, record.results)).items():
                tests.setdefault(key, test)
                answers.setdefault(key, {})[id(record)] = record, result
        for key, of_runs in answers.items():
            part, results = _of_test(group, of_runs)
            rows.setdefault(key, []).append(_row(part, tests[key], results))
    if forced:
        every = [row for key in tests for row in rows[key]]
        return [_ranked(list(tests.values()), every, baseline, forced=len(tests) > 1)] if every else []
    return [_ranked([test], rows[key], baseline) for key, test in tests.items()]


def results_by_test(results: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Test, Mapping[str, Any]]]:
    """Of a run's results that of each test, by its key: the one over most episodes, and of these the latest."""
    answers: dict[str, tuple[Test, Mapping[str, Any]]] = {}
    for result in results:
        test = test_of(result)
        known = answers.get(test.key)
        if known is None or (result.get("episodes") or 0) >= (known[1].get("episodes") or 0):
            answers[test.key] = test, result
    return answers


def _of_test(
    group: Group, answers: Mapping[int, tuple[Record, Mapping[str, Any]]]
) -> tuple[Group, list[Mapping[str, Any]]]:
    """Of each seed the newest run that was put to a test, and their results; `answers` by run, the newest last.

    The newest of all may have been put to fewer tests than one before it.
    """
    newest = {repr(record.seed): (record, result) for record, result in answers.values()}
    records, results = zip(*(newest[repr(seed)] for seed in group.seeds if repr(seed) in newest), strict=True)
    others = [record for record in group.repeats if all(record is not each for each in records)]
    repeats = [record for record in others if id(record) in answers or not record.results]
    return replace(group, records=records, repeats=repeats), list(results)


def _row(group: Group, test: Test, results: Sequence[Mapping[str, Any]]) -> Row:
    figures = _figures(group, results)
    if len(results) == 1:
        [result] = results
        return Row(group, test, results, figures, float(figure_of(result)), result.get("ci95"))
    if figures is None:
        means, over_tasks = np.array([figure_of(result) for result in results], dtype=float), None
    else:  # of the same tasks, as some runs may have more of them
        means, by_task = figures.mean(axis=1, dtype=float), figures.mean(axis=0, dtype=float)
        over_tasks = interval(by_task, unit=test.unit)
    spread = {"sd_seeds": float(means.std(ddof=1)), "ci95_seeds": t_interval(means)}
    return Row(group, test, results, figures, float(means.mean()), over_tasks, **spread)


def _figures(group: Group, results: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """(R, T) on the tasks that all runs share."""
    rows = []
    for record, result in zip(group.records, results, strict=True):
        where = result.get("tasks")
        values = read_tasks(record.run.path / where) if isinstance(where, str) else None
        if values is None or abs(values.mean(dtype=float) - figure_of(result)) > 1e-4:
            return None  # not the tasks of this result
        rows.append(values)
    shared = min(map(len, rows))
    return rows[0][None] if len(rows) == 1 else np.stack([values[:shared] for values in rows])


def _ranked(tests: Sequence[Test], rows: Iterable[Row], baseline: Record | None, *, forced: bool = False) -> Ranking:
    rows = sorted(rows, key=lambda row: -row.mean)
    reference = rows[0]
    if baseline is not None:
        reference = next((row for row in rows if baseline in row.group), None)
    if reference is not None:
        others = [row for row in rows if row is not reference]
        differences = [_difference(row, reference) for row in others]
        ps = [None if difference is None else difference.p for difference in differences]
        adjusted = holm(ps, of_best=baseline is None)
        level = LEVEL / max(1, count_tests(ps, of_best=baseline is None))
        compared = {
            id(row): difference and _judged(replace(difference, p_holm=p), row.test, level)
            for row, difference, p in zip(others, differences, adjusted, strict=True)
        }
        position = rows.index(reference)
        rows = [replace(row, difference=compared.get(id(row)), is_reference=row is reference) for row in rows]
        reference = rows[position]
    return Ranking(tests, rows, reference, forced=forced, against_baseline=baseline is not None)


def _difference(row: Row, reference: Row) -> Difference | None:
    first, second = row.figures, reference.figures
    if first is None or second is None:
        return None
    if row.test.key != reference.test.key:
        return unpaired_difference(first, second)
    shared = min(first.shape[1], second.shape[1])
    return paired_difference(first[:, :shared], second[:, :shared], unit=row.test.unit)


def _judged(difference: Difference, test: Test, level: float) -> Difference:
    """With what it would take to tell the two apart, where they answered the same tasks."""
    if not difference.paired:
        return difference
    return with_needs(difference, tasks_are_fixed=test.tasks_are_fixed, level=level)


def find_baseline(records: Sequence[Record], path: str) -> Record:
    """One of the runs that are compared, named by its folder or the end of it, or else the run in the folder `path`."""
    wanted = os.path.realpath(path)
    named = [record for record in records if os.path.realpath(record.run.path) == wanted or record.name.endswith(path)]
    if not named and os.path.lexists(path):
        return read_record(RunFolder.open(path))
    if len(named) != 1:
        problem = f"{len(named)} of the compared runs are" if named else "none of the compared runs is"
        raise UserError(f"--baseline={path}: {problem} called so; give a whole run folder")
    return named[0]
