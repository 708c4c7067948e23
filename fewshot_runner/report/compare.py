"""Runs side by side on the terminal."""

import textwrap
from collections.abc import Mapping, Sequence

from rich.text import Text

from fewshot_runner.report.cells import (
    MANY_SETTINGS,
    MOST_COLUMNS,
    columns_of,
    reasons_text,
    run_text,
    spread_text,
    states_text,
)
from fewshot_runner.report.config import shown
from fewshot_runner.report.grid import grid, heading
from fewshot_runner.report.ranking import Ranking, Row
from fewshot_runner.report.records import Record
from fewshot_runner.report.results import interval_text
from fewshot_runner.report.settings import SEED, differing, short

# What a narrow table tells beneath its rows, in this order; the last ones only after the settings.
FURTHER = ("reason", "needed", "seconds", "p", "± over seeds (s.d.)", "seeds", "p (Holm)")
LAST = ("tasks", "test", "difference", "state")
BENEATH_ALONE = ("reason", "measured over", "metric", "test", "± over seeds (s.d.)", "state")
FOLDED = "settings: of the first run all that differ between the runs, of the others what differs from the first"
STATUS = ("run", "state", "step", "updated", "reason")  # what is told of a run that has no results
ALONE = "results with nothing to compare them with"
LEGEND = (
    "±: half of a 95 % interval over tasks, the wider half where they differ; over seeds where it says so. "
    "Of episodes drawn from few images it says nothing of other images.\n"
    "difference: to the run marked *, in points, task by task.\n"
    "p: of the two-sided test (paired t-test over tasks, or the exact sign test where each is a single answer; where "
    "there are several seeds, over tasks and seeds), and Holm's: over all pairs of a table, or with --baseline over "
    "its rows.\n"
    "needed: more tasks or seeds where Holm's p is not below 0.05, for a power of 0.8 at the level 0.05 over the "
    "number of tests, if the true difference is the measured one; fewer seeds may do, as they also steady the figure "
    "of each task.\n"
    "A single run stands for itself: another seed may do better or worse. Among runs with the same settings and seed "
    "the newest with results is used; +n: further seeds."
)


def comparison(rankings: Sequence[Ranking], records: Sequence[Record], *, width: int) -> Text:
    """A table a ranking, one of the runs without results, and what the columns mean."""
    ranked, alone, common = divided(rankings)
    tables = [ranking_table(ranking, width=width) for ranking in ranked]
    if alone:
        tables.append(table_alone([told for _, told in alone], common, width=width))
    if waiting := without_results(rankings, records):
        tables.append(state_table(state_rows(waiting, records), width=width))
    if any(len(ranking.rows) > 1 for ranking in rankings):
        legend = (textwrap.fill(line, width) for line in LEGEND.splitlines())
        tables.append(Text("\n".join(legend), style="dim"))
    return Text("\n").join(tables)


def divided(rankings: Sequence[Ranking]) -> tuple[list[Ranking], list[tuple[Row, dict[str, str]]], str]:
    """First, the rankings of two rows or more. Second, each row that is alone in its ranking, and its cells by column,
    without the columns that are empty in all of these rows. Third, what all of these rows were measured over.
    """
    ranked = [ranking for ranking in rankings if len(ranking.rows) > 1]
    single = [ranking for ranking in rankings if len(ranking.rows) == 1]
    common = [each for each in single[0].details if all(each in other.details for other in single)] if single else []
    alone = [(ranking.rows[0], told_alone(ranking, common)) for ranking in single]
    used = {name for _, told in alone for name, cell in told.items() if cell}
    alone = [(row, {name: told[name] for name in told if name in used}) for row, told in alone]
    return ranked, alone, ", ".join(common)


def told_alone(ranking: Ranking, common: Sequence[str]) -> dict[str, str]:
    [row] = ranking.rows
    return {
        "run": run_text(row.group),
        "state": states_text(row.group),
        "reason": reasons_text(row.group),
        "test": ranking.title,
        "metric": row.test.metric,
        "result": interval_text(row.mean, row.ci95),
        "± over seeds (s.d.)": spread_text(row),
        "measured over": ", ".join(each for each in ranking.details if each not in common),
    }


def without_results(rankings: Sequence[Ranking], records: Sequence[Record]) -> list[Record]:
    """The runs that stand in no ranking."""
    ranked = {id(record) for ranking in rankings for row in ranking.rows for record in row.group.members}
    return [record for record in records if id(record) not in ranked and not record.results]


def table_alone(rows: Sequence[Mapping[str, str]], common: str, *, width: int) -> Text:
    table = grid(
        rows,
        width=width,
        right=["result", "± over seeds (s.d.)"],
        beneath=[name for name in BENEATH_ALONE if name in rows[0]],
        unnamed=["reason"],
    )
    return Text.assemble(heading(ALONE, common, width=width), "\n", table)


def ranking_table(ranking: Ranking, *, width: int) -> Text:
    columns = columns_of(ranking)
    rows = []
    for row, told in zip(ranking.rows, columns.rows, strict=True):
        mark = "*" if row.is_reference and len(ranking.rows) > 1 else " "
        rows.append({"run": "", **told} | {"run": f"{mark} {run_text(row.group)}"})
    table = grid(
        rows,
        width=width,
        right=columns.right,
        beneath=[
            name for name in dict.fromkeys([MANY_SETTINGS, *FURTHER, *columns.settings, *LAST]) if name in rows[0]
        ],
        unnamed=[MANY_SETTINGS, "reason"],
        styles={number: "bold" for number, row in enumerate(ranking.rows) if row.is_reference},
    )
    folded = FOLDED if MANY_SETTINGS in columns.settings else None
    note = textwrap.fill("; ".join(filter(None, [footnote(ranking), folded])), width)
    return Text.assemble(ranking_heading(ranking, width=width), "\n", table, (f"{note}\n" if note else "", "dim"))


def ranking_heading(ranking: Ranking, *, width: int) -> Text:
    if not ranking.forced:
        return heading(ranking.title, ", ".join(ranking.details), width=width)
    return Text.assemble(("forced: ", "bold red"), (ranking.title, "bold"), ": their figures do not measure the same")


def footnote(ranking: Ranking) -> str | None:
    """What a reader has to know of this table alone."""
    if ranking.forced:
        return "differences between different tests are unpaired, and part of each is that of the tests"
    if ranking.against_baseline and ranking.reference is None:
        return "the baseline has no result here, so there are no differences"
    if len(ranking.rows) < 2:
        return None
    counts = {row.n_tasks for row in ranking.rows}
    notes = ["no difference where the figures of the single tasks are missing"] if None in counts else []
    if len(counts - {None}) > 1:
        notes.append("differences are on the tasks that both answered, the other figures on all that each did")
    return "; ".join(notes) or None


def state_table(rows: Sequence[Mapping[str, str]], *, width: int) -> Text:
    names = [name for name in rows[0] if name not in STATUS]
    table = grid(rows, width=width, right=["step"], beneath=["reason", "updated", *names], unnamed=["reason"])
    return Text.assemble(("without results\n", "bold"), table)


def state_rows(waiting: Sequence[Record], records: Sequence[Record]) -> list[dict[str, str]]:
    """Runs that have no results: how far they are, and why no farther; and settings in which `records` differ."""
    names = differing([record.settings for record in records])
    names = [name for name in names if name == SEED or len(names) <= MOST_COLUMNS]
    rows = []
    for record in waiting:
        told = {short(name): shown(record.settings.get(name)) for name in names}
        status = {key: shown(record.status.get(key)) for key in ("step", "updated")}
        rows.append({"run": record.name, "state": record.state, **told, **status, "reason": record.reason or ""})
    return rows
