"""fsl report: one page with all that is known of a set of runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fewshot_runner import atomic
from fewshot_runner.cli.compare import add_selection, selected
from fewshot_runner.errors import UserError
from fewshot_runner.report.analysis import read_analysis
from fewshot_runner.report.groups import Group
from fewshot_runner.report.line import encodable, one_line
from fewshot_runner.report.page import in_detail, in_order_of_results, page
from fewshot_runner.report.records import Record


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl report",
        description="Writes one HTML page that needs neither a network nor fsl: the comparison, learning curves, "
        "settings, ways and shots, accuracy by class and the hardest episodes.",
    )
    add_selection(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default: report.html")
    parser.add_argument("--title", default="Few-shot runs", help="the page's title")
    parser.add_argument("--analyse", action=argparse.BooleanOptionalAction, default=True, help="whether a run "
                        "of each experiment that is shown in detail is analysed first: that needs the data, takes "
                        "about as long as a test, and is kept in the run folder (default: yes)")  # fmt: skip
    options = parser.parse_args(arguments)
    check_output(options.output)
    records, rankings, skipped = selected(options)
    waiting = to_analyse(in_detail(in_order_of_results(rankings, records)))
    if options.analyse:
        analyse(waiting)
    html = page(rankings, records, title=options.title, skipped=skipped)
    try:
        atomic.write_text(options.output, encodable(html))
    except OSError as error:
        raise UserError(f"--output={options.output}: cannot be written ({error.strerror})") from error
    print(f"report: {one_line(str(options.output))}")
    if waiting and not options.analyse:
        print(
            f"not analysed: {', '.join(one_line(record.name) for record in waiting)}; without --no-analyse their ways "
            "and shots, classes and hardest episodes would be there"
        )


def check_output(path: Path) -> None:
    try:
        if not path.parent.is_dir() or path.is_dir():
            raise UserError(f"--output={path}: give a file in a folder that exists, such as report.html")
    except OSError as error:
        raise UserError(f"--output={path}: cannot be written ({error.strerror})") from error


def to_analyse(groups: Sequence[Group]) -> list[Record]:
    """Of each experiment that has results and no analysis, the run that the page would show."""
    tested = ([record for record in group.records if record.results] for group in groups)
    return [records[0] for records in tested if records and not any(map(is_analysed, records))]


def analyse(waiting: Sequence[Record]) -> None:
    """One run after the other; what cannot be analysed is said, and the others go on."""
    for number, record in enumerate(waiting, start=1):
        from fewshot_runner.cli.analysis import analyse_run  # late: reports are made without torch

        print(f"analyse {number}/{len(waiting)}: {record.run.path}", file=sys.stderr)
        try:
            analyse_run(record.run)
        except UserError as error:
            print(f"not analysed: {record.run.path}: {error}", file=sys.stderr)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError, OSError) as error:
            # of a run that another version of fsl has made, or one in somebody else's folder
            print(f"not analysed: {record.run.path}: {type(error).__name__}: {error}", file=sys.stderr)


def is_analysed(record: Record) -> bool:
    try:
        return read_analysis(record) is not None
    except UserError:
        return False
