"""The report: one page with all that is known of a set of runs. It holds no script and asks the network for nothing."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

from fewshot_runner.errors import UserError
from fewshot_runner.report.analysis import read_analysis
from fewshot_runner.report.cells import columns_of, run_text
from fewshot_runner.report.charts import COLOURS
from fewshot_runner.report.compare import ALONE, LEGEND, divided, footnote, state_rows, without_results
from fewshot_runner.report.config import shown
from fewshot_runner.report.curves import curves
from fewshot_runner.report.details import details
from fewshot_runner.report.groups import Group, group_runs
from fewshot_runner.report.html import paragraph, table, tag, text
from fewshot_runner.report.ranking import Ranking, Row
from fewshot_runner.report.records import Record
from fewshot_runner.report.settings import differing, is_compared, short

MOST_CURVES = 16  # experiments in a chart, and with details of their own
MOST_NAMED = 4  # settings in the label of an experiment
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LEGEND_HERE = LEGEND.replace("*", "★")


def page(rankings: Sequence[Ranking], records: Sequence[Record], *, title: str, skipped: Sequence[str] = ()) -> str:
    """The whole page. `skipped` are lines on folders that could not be read."""
    skipped = list(skipped)
    groups = in_order_of_results(rankings, records)
    chosen = dict(enumerate(in_detail(groups)))
    names = differing([group.settings for group in groups])[:MOST_NAMED]
    labels = {number: label_of(group, names) for number, group in chosen.items()}
    sections = {
        "Comparison": comparison_section(rankings, records, chosen),
        "Settings": settings_section(groups),
        "Learning curves": curves_section(groups, chosen, labels, skipped),
        "Runs in detail": details_section(chosen, labels, skipped),
    }
    if skipped:
        sections["Skipped"] = tag("ul", *(tag("li", text(line)) for line in skipped))
    anchors = {name: name.lower().replace(" ", "-") for name in sections}
    links = (tag("a", text(name), href=f"#{anchors[name]}") for name in sections)
    body = "".join(tag("h2", text(name), id=anchors[name]) + content for name, content in sections.items())
    counts = Counter(record.state for record in records)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    summary = f"{len(records):,} runs ({states}) of {len(groups):,} experiments; {time.strftime('%d %B %Y, %H:%M')}"
    style = files("fewshot_runner.report").joinpath("page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style></head><body>"
        f"{tag('h1', text(title))}{paragraph(summary, css='faint')}{tag('nav', *links)}{body}</body></html>\n"
    )


def in_order_of_results(rankings: Sequence[Ranking], records: Sequence[Record]) -> list[Group]:
    """Experiments as the first ranking has them, then as the others do, then those without results."""
    groups = group_runs(records)
    places = {}
    for row in (row for ranking in rankings for row in ranking.rows):
        places.setdefault(id(row.group.records[0]), len(places))
    return sorted(groups, key=lambda group: min(places.get(id(record), len(places)) for record in group.members))


def in_detail(groups: Sequence[Group]) -> Sequence[Group]:
    """The experiments, in the order of results, that are shown in detail."""
    return groups[:MOST_CURVES]


def label_of(group: Group, names: Sequence[str]) -> str:
    """A name if the user gave one, else the settings that set the experiment apart."""
    if name := group.settings.get("name"):
        return str(name)
    told = " ".join(f"{short(name)}={shown(group.settings.get(name))}" for name in names)
    return told or run_text(group)


def comparison_section(
    rankings: Sequence[Ranking], records: Sequence[Record], chosen: Mapping[int, Group]
) -> str:  # fmt: skip
    numbers = {id(each): number for number, group in chosen.items() for each in group.members}
    ranked, alone, common = divided(rankings)
    parts = [ranking_html(ranking, numbers) for ranking in ranked]
    if alone:
        rows = [{**told, "run": run_html(row, numbers)} for row, told in alone]
        title, about = ALONE[0].upper() + ALONE[1:], paragraph(common, css="faint") if common else ""
        cells = table(rows, figures=["result", "± over seeds (s.d.)"], names=["run"], html=["run"])
        parts.append(tag("h3", title) + about + cells)
    if waiting := without_results(rankings, records):
        parts.append(
            tag("h3", "Without results") + table(state_rows(waiting, records), figures=["step"], names=["run"])
        )
    if any(len(ranking.rows) > 1 for ranking in rankings):
        parts.append(paragraph(LEGEND_HERE, css="faint"))
    return "".join(parts) or paragraph("There are no results yet.")


def ranking_html(ranking: Ranking, numbers: Mapping[int, int]) -> str:
    columns = columns_of(ranking)
    told = zip(ranking.rows, columns.rows, strict=True)
    rows = [{"run": "", **cells} | {"run": run_html(row, numbers)} for row, cells in told]  # none may say it is HTML
    marked = [number for number, row in enumerate(ranking.rows) if row.is_reference and len(rows) > 1]
    title = tag("h3", text(ranking.title))
    if ranking.forced:
        about = paragraph("Forced: these figures do not measure the same.", css="warning")
    else:
        about = paragraph(", ".join(ranking.details), css="faint")
    note = footnote(ranking)
    end = paragraph(note, css="faint") if note else ""
    return title + about + table(rows, figures=columns.right, names=["run"], html=["run"], marked=marked) + end


def run_html(row: Row, numbers: Mapping[int, int]) -> str:
    """Its folder, with the colour of its curves and a link to its details where there are some."""
    name = text(run_text(row.group))
    number = numbers.get(id(row.group.records[0]))
    if number is None:
        return name
    return tag("a", swatch(number), name, href=f"#run-{number}")


def swatch(number: int) -> str:
    """The colour of an experiment's curves."""
    return tag("span", css=f"swatch b{number % COLOURS}")


def settings_section(groups: Sequence[Group]) -> str:
    """What sets the experiments apart; and on demand all that is not the same, with what a choice of a group brings."""
    if len(groups) < 2:
        return paragraph("There is one experiment.")
    names = differing([group.settings for group in groups])
    everything = sorted({name for group in groups for name in group.settings if is_compared(name)} - set(names))
    further = [name for name in everything if len({str(group.settings.get(name)) for group in groups}) > 1]
    if not names:
        return paragraph("All experiments have the same settings.")
    more = ""
    if len(groups) > MOST_CURVES:
        more = paragraph(f"The first {MOST_CURVES} of {len(groups):,} experiments.")
    if further:
        summary = tag("summary", f"{len(further)} more, which the choices of groups bring with them")
        further_html = tag("details", summary, settings_table(groups[:MOST_CURVES], further))
    return more + settings_table(groups[:MOST_CURVES], names) + (further_html if further else "")


def settings_table(groups: Sequence[Group], names: Sequence[str]) -> str:
    """A row a setting, a column an experiment."""
    rows = []
    for name in names:
        values = {f"{k + 1}: {run_text(group)}": shown(group.settings.get(name)) for k, group in enumerate(groups)}
        rows.append({"setting": short(name), **values})
    return table(rows, names=["setting"], css="settings")


def curves_section(
    groups: Sequence[Group], chosen: Mapping[int, Group], labels: Mapping[int, str], skipped: list[str]
) -> str:
    charts = curves(chosen, labels, skipped)
    names = [tag("span", swatch(number), text(label), css="faint") for number, label in labels.items()]
    key = tag("p", *names, css="key")
    more = f"The first {MOST_CURVES} of {len(groups):,} experiments." if len(groups) > MOST_CURVES else ""
    return (paragraph(more) if more else "") + key + charts


def details_section(chosen: Mapping[int, Group], labels: Mapping[int, str], skipped: list[str]) -> str:
    """The analyses there are; of an experiment the first run that has one stands for all its seeds."""
    parts, without = [], []
    for number, group in chosen.items():
        found = ""
        for record in group.records:
            try:
                analysis = read_analysis(record)
                if analysis and not found:
                    found = details(record, analysis)
                    if len(group.records) > 1:
                        found = paragraph(f"Of seed {shown(record.seed)}, {record.name}:", css="faint") + found
            except UserError as error:
                skipped.append(str(error))
        heading = tag("h3", swatch(number), text(labels[number]), id=f"run-{number}")
        runs = paragraph(", ".join(record.name for record in group.records), css="faint")
        parts.append(heading + runs + found)
        if not found and any(record.results for record in group.records):
            without.append(number)
    if without:
        hint = (
            f"{len(without)} of {len(chosen)} experiments here have not been analysed: accuracy by class, ways and "
            "shots and the hardest episodes are missing. fsl report computes them where the data is, unless told "
            "--no-analyse."
        )
        parts.insert(0, paragraph(hint))
    return "".join(parts)
