"""What stands in the row of an experiment, as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fewshot_runner.report.config import shown
from fewshot_runner.report.groups import Group
from fewshot_runner.report.ranking import Ranking, Row
from fewshot_runner.report.records import is_number
from fewshot_runner.report.results import interval_text
from fewshot_runner.report.settings import differing, short
from fewshot_runner.report.statistics import Difference
from fewshot_runner.runs import DONE

MOST_COLUMNS, WIDEST = 5, 50  # columns of settings, and characters in them all; more of them share one
MANY_SETTINGS = "settings, then what differs"
TEXTS = ("state", "reason", "test", "needed")  # all other columns behind the settings are figures


def run_text(group: Group) -> str:
    """Folders are named by time and chance, so that the last part alone finds a run."""
    more = f" +{len(group.records) - 1}" if len(group.records) > 1 else ""
    count = len(group.repeats)
    repeats = f" ({count} repeat{'s' * (count > 1)})" if count else ""
    return f"{group.records[0].run.path.name}{more}{repeats}"


def settings_columns(ranking: Ranking) -> dict[str, list[str]]:
    """Names and the value of each row; in a single column where there are many, what is not as in the first row."""
    all_settings = [row.group.settings for row in ranking.rows]
    names = differing(all_settings)
    columns = {short(name): [shown(each.get(name)) for each in all_settings] for name in names}
    width = sum(2 + max(map(len, [name, *values])) for name, values in columns.items())
    if len(names) <= MOST_COLUMNS and width <= WIDEST:
        return columns
    first = [values[0] for values in columns.values()]
    told = []
    for row in zip(*columns.values(), strict=True):
        shown_here = [k for k in range(len(row)) if not told or row[k] != first[k]]
        told.append("  ".join(f"{short(names[k])}={row[k]}" for k in shown_here))
    return {MANY_SETTINGS: told}


@dataclass(frozen=True)
class Columns:
    """What stands behind the runs of a ranking. `rows` by column, in the order of the ranking's; of the columns,
    `settings` are settings, and `right` stand flush right.
    """

    rows: Sequence[Mapping[str, str]]
    settings: Sequence[str]
    right: Sequence[str]


def columns_of(ranking: Ranking) -> Columns:
    """A column in which every row is empty is left out."""
    lines = [cells(row, ranking) for row in ranking.rows]
    used = [name for name in lines[0] if any(line[name] for line in lines)]
    settings = settings_columns(ranking)
    rows = [
        {name: values[place] for name, values in settings.items()} | {name: line[name] for name in used}
        for place, line in enumerate(lines)
    ]
    return Columns(rows, list(settings), [name for name in used if name not in TEXTS])


def cells(row: Row, ranking: Ranking) -> dict[str, str]:
    """The columns of a row behind its settings."""
    figure = "result" if ranking.forced else ranking.tests[0].metric
    return {
        "state": states_text(row.group),
        "reason": reasons_text(row.group),
        "test": f"{ranking.names[row.test.key]}, {row.test.mode}" if ranking.forced else "",
        "seeds": seeds_text(row) if ranking.has_seeds else "",
        figure: interval_text(row.mean, row.ci95),
        "tasks": "" if ranking.n_tasks or row.n_tasks is None else f"{row.n_tasks:,}",
        "± over seeds (s.d.)": spread_text(row),
        **difference_cells(row),
        "seconds": "" if (seconds := mean_seconds(row)) is None else f"{seconds:.0f}",
    }


def states_text(group: Group) -> str:
    """Of the runs that are not done."""
    return ", ".join(dict.fromkeys(record.state for record in group.records if record.state != DONE))


def reasons_text(group: Group) -> str:
    """Why they are not; of which seed, where there are several."""
    reasons = [(record.seed, record.reason) for record in group.records if record.reason]
    if len(group.records) > 1:
        return "; ".join(f"seed {shown(seed)}: {reason}" for seed, reason in reasons)
    return "".join(reason for _, reason in reasons)


def seeds_text(row: Row) -> str:
    seeds = row.group.seeds
    if len(seeds) > 3 and seeds == list(range(len(seeds))):
        return f"0 to {seeds[-1]}"
    return ",".join(map(shown, seeds))


def spread_text(row: Row) -> str:
    return "" if row.ci95_seeds is None else f"± {100 * row.ci95_seeds:.2f} ({100 * row.sd_seeds:.2f})"


def mean_seconds(row: Row) -> float | None:
    """Of the runs of the experiment that say how long they took."""
    seconds = [record.status.get("seconds") for record in row.group.records]
    known = [each for each in seconds if is_number(each)]
    return sum(known) / len(known) if known else None


def difference_cells(row: Row) -> dict[str, str]:
    difference = row.difference
    if difference is None or difference.ci95 is None:
        text = "" if difference is None else f"{100 * difference.mean:+.2f}"
        return {"difference": text, "p": "", "p (Holm)": "", "needed": ""}
    unpaired = "" if difference.paired else " unpaired"
    return {
        "difference": f"{100 * difference.mean:+.2f} ± {100 * difference.ci95:.2f}{unpaired}",
        "p": p_text(difference.p),
        "p (Holm)": p_text(difference.p_holm),
        "needed": needs_text(row, difference),
    }


def p_text(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def needs_text(row: Row, difference: Difference) -> str:
    """How many more episodes or seeds."""
    if difference.told_apart or not difference.paired:
        return ""
    if difference.mean == 0:
        return "no difference seen"
    said = []
    if difference.more_tasks is not None:
        said.append(f"+{difference.more_tasks:,} {row.test.unit}")
    if difference.more_seeds is not None:
        said.append(f"+{difference.more_seeds} seeds ({difference.over_seeds.count + difference.more_seeds} each)")
    if said:
        return " and ".join(said)
    known = difference.over_seeds is not None and not row.test.tasks_are_fixed  # see power.py: seeds steady tasks, too
    return "out of reach" if known else "more seeds"
