"""One run in detail, from its analysis: groups and classes, ways and shots, the hardest tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_runner.report.analysis import damaged, read_picture
from fewshot_runner.report.charts import heat_map
from fewshot_runner.report.html import bar, image, paragraph, table, tag, text
from fewshot_runner.report.records import Record

LEAST_COUNT = 5  # of episodes: an interval over fewer is wider than what there is to know
MOST_CLASSES = 12  # shown at once; the others on demand


def details(record: Record, analysis: Mapping[str, Any]) -> str:
    """What is missing is said at the end. Raises `UserError` where the analysis is not as fsl writes one."""
    try:
        parts = [surface_html(analysis), accuracies_html(analysis), hardest_html(record, analysis)]
        missing = [paragraph(f"Not here: {reason}.", css="faint") for reason in analysis.get("missing", ())]
        return "".join(parts + missing)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise damaged(record, f"{type(error).__name__}: {error}") from error


def surface_html(analysis: Mapping[str, Any]) -> str:
    surface = analysis.get("surface")
    if not surface:
        return ""
    notes = [
        [
            f"{way}-way {shot}-shot: {100 * value:.2f} ± {100 * half:.2f} %"
            for shot, value, half in zip(surface["shots"], values, halves, strict=True)
        ]
        for way, values, halves in zip(surface["ways"], surface["accuracy"], surface["ci95"], strict=True)
    ]  # fmt: skip
    chart = heat_map(
        surface["accuracy"], notes, rows=surface["ways"], columns=surface["shots"], row_title="ways",
        column_title="shots",
    )  # fmt: skip
    widest = max(half for halves in surface["ci95"] for half in halves)
    within = " within a group" if surface["within_group"] else ""
    caption = (
        f"accuracy in percent, ± {100 * widest:.1f} or less (95 % interval over {surface['episodes']} episodes of seed "
        f"{surface['seed']}{within}, {surface['n_query']} queries a class)"
    )
    return tag("h4", "Ways and shots") + tag("figure", chart, tag("figcaption", text(caption)))


def accuracies_html(analysis: Mapping[str, Any]) -> str:
    classes, groups = analysis.get("classes") or [], analysis.get("groups") or []
    unit = analysis.get("unit", "episodes")
    test = f"{analysis.get('test')}, {analysis.get('dataset')} {analysis.get('split')}"
    blocks = []
    if groups:
        caption = f"{test}: {len(groups)} groups, the hardest first"
        blocks.append(tag("div", tag("h4", "Accuracy by group"), accuracy_table(groups, unit, caption)))
    if classes:
        caption = f"{test}: the hardest of {len(classes)} classes" if len(classes) > MOST_CLASSES else test
        hardest = accuracy_table(classes[:MOST_CLASSES], unit, caption)
        others = classes[MOST_CLASSES:]
        summary = tag("summary", f"the other {len(others)} classes")
        rest = tag("details", summary, accuracy_table(others, unit)) if others else ""
        blocks.append(tag("div", tag("h4", "Accuracy by class"), hardest, rest))
    return tag("div", *blocks, css="columns") if blocks else ""


def accuracy_table(rows: Sequence[Mapping[str, Any]], unit: str, caption: str = "") -> str:
    told = []
    for row in rows:
        half = "" if row["ci95"] is None or row["count"] < LEAST_COUNT else f" ± {100 * row['ci95']:.1f}"
        told.append(
            {"name": str(row["name"]), "": bar(row["accuracy"]), "accuracy": f"{100 * row['accuracy']:.1f}{half} %",
             unit: f"{row['count']:,}"}
        )  # fmt: skip
    return table(told, figures=["accuracy", unit], html=[""], caption=caption)


def hardest_html(record: Record, analysis: Mapping[str, Any]) -> str:
    hardest = analysis.get("hardest") or []
    if not hardest:
        return ""
    if analysis.get("unit") == "images":
        cards = [image_card(record, each) for each in hardest]
        return tag("h4", "Hardest images") + tag("div", *cards, css="images")
    legend = "A row a class: support on the left, queries on the right; green frames are right answers, red ones wrong."
    cards = [episode_card(record, each) for each in hardest]
    return tag("h4", "Hardest episodes") + paragraph(legend, css="faint") + tag("div", *cards, css="episodes")


def image_card(record: Record, each: Mapping[str, Any]) -> str:
    right = each["answer"] == each["truth"]
    said = f"{each['answer']} ({100 * each['score']:.0f} %)"
    caption = said if right else f"{each['truth']}, taken for {said}"
    return tag("figure", picture(record, each["picture"], caption), tag("figcaption", text(caption)))


def episode_card(record: Record, each: Mapping[str, Any]) -> str:
    wrong = f"{each['wrong']} of {each['queries']} queries wrong"
    title = f"episode {each['number']}: {wrong}, {100 * each['accuracy']:.1f} %"
    mistakes = []
    for mistake in each["mistakes"]:
        times = f", {mistake['count']} times" if mistake["count"] > 1 else ""
        said = f"{mistake['truth']}, taken for {mistake['answer']}{times}"
        mistakes.append(tag("div", picture(record, mistake["picture"], said), tag("span", text(said)), css="mistake"))
    key = paragraph("query, its class, the answer:", css="faint") if mistakes else ""
    whole = picture(record, each["picture"], title, css="whole")
    return tag("div", tag("strong", text(title)), whole, key, *mistakes, css="card")


def picture(record: Record, name: Any, alt: str, css: str = "") -> str:
    png = read_picture(record, name)
    return paragraph(f"{name} is missing", css="faint") if png is None else image(png, alt=alt, css=css)
