"""fsl compare: runs side by side, from their folders alone."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.cli.garbage import no_search_for_garbage
from fewshot_runner.errors import UserError
from fewshot_runner.report.compare import comparison
from fewshot_runner.report.console import output
from fewshot_runner.report.csv_text import csv_text
from fewshot_runner.report.flat import flat_rows
from fewshot_runner.report.measured import test_of
from fewshot_runner.report.order import FIGURES, sorted_rows
from fewshot_runner.report.ranking import Ranking, find_baseline, rank
from fewshot_runner.report.records import Record, find_records, oldest_first
from fewshot_runner.report.settings import CHOICES, either, matches, short

OF_TEST = "test."

EPILOG = """Runs that were tested on the same tasks stand in one ranking, and those that differ in nothing but the seed
in one row. Other protocols, splits and modes have rankings of their own; --force puts all into one, and says so.

  fsl compare outputs --where method=siamese,prototypical --where test=5way1shot
  fsl compare outputs --baseline outputs/omniglot-siamese/20261122-014133-2595ea"""


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl compare",
        description="Tables of runs: the settings in which they differ, their results, and what the differences are "
        "worth.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection(parser)
    parser.add_argument("--sort", metavar="KEY", help="result (default, best first), " + ", ".join([*FIGURES][1:]) +
                        ", or a setting, smallest first")  # fmt: skip
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, an object a run")
    form.add_argument("--csv", action="store_true", help="print CSV, a line a run")
    options = parser.parse_args(arguments)
    with no_search_for_garbage():
        records, rankings, _ = selected(options)
        rankings = [in_order(ranking, options.sort, options.reverse, records) for ranking in rankings]
        if options.json:
            print(json.dumps(json_safe(flat_rows(rankings, records)), indent=2))
        elif options.csv:
            sys.stdout.write(csv_text(flat_rows(rankings, records)))
        else:
            console = output()
            console.print(comparison(rankings, records, width=console.width), soft_wrap=True)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose runs and rank them."""
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("outputs")], metavar="RUN or DIR")
    parser.add_argument("--baseline", metavar="RUN", help="the run that others are compared with (default: the best)")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only runs with this setting "
                        "(or state), or with test.KEY only results of such tests; VALUE,VALUE for either")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="one ranking of all tests, marked as such")


def selected(options: argparse.Namespace) -> tuple[list[Record], list[Ranking], list[str]]:
    """The runs that the command line chooses, their rankings, and what is no run, which is also said at once.

    Raises `UserError` where there are none: a comparison of nothing looks like one that has found nothing amiss.
    """
    records, skipped = find_records(options.runs)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    if not records:
        places = " ".join(map(str, options.runs))
        raise UserError(f"{places}: no runs in there; give the folder that fsl train wrote to")
    baseline = None if options.baseline is None else find_baseline(records, options.baseline)
    of_run, of_test = conditions(options.where, records)
    is_about_tests = any(condition.startswith("test") for condition in options.where)

    def has_wanted(record: Record) -> bool:
        return not is_about_tests or any(map(of_test, record.results))

    kept = [record for record in records if of_run(record)]
    if not any(map(has_wanted, kept)):
        looked_for = " ".join(f"--where {condition}" for condition in options.where)
        count = f"{len(records)} runs do" if len(records) > 1 else "run does"
        raise UserError(f"{looked_for}: the {count} not match; without it fsl compare shows what there is")
    rankings = rank(kept, baseline=baseline, forced=options.force, wanted=of_test)
    if baseline is not None and baseline not in kept:  # after the ranking: what was filtered out joins no row of others
        kept = oldest_first([*kept, baseline])
    return [record for record in kept if has_wanted(record)], rankings, skipped


def conditions(
    given: Sequence[str], records: Sequence[Record]
) -> tuple[Callable[[Record], bool], Callable[[Mapping[str, Any]], bool]]:
    """What runs and what results have to fulfil. Raises `UserError` for a key that none of the runs has."""
    if not given:
        return (lambda record: True), (lambda result: True)
    settings = {short(name): name for record in records for name in record.settings}
    settings |= {name: name for name in list(settings.values())}
    fields = {field for record in records for result in record.results for field in test_of(result).fields}
    of_run: list[tuple[str, list[str]]] = []
    of_test: list[tuple[str, list[str]]] = []
    for condition in given:
        key, equals, value = condition.partition("=")
        if not equals:
            raise UserError(f"--where {condition}: give KEY=VALUE, as in --where method=siamese")
        if key == "test" or (key.startswith(OF_TEST) and key.removeprefix(OF_TEST) in fields):
            of_test.append((key.removeprefix(OF_TEST), either(value)))
        elif key == "state" or key in settings:
            of_run.append((settings.get(key, key), either(value)))
        else:
            known = ["state", "test", *settings, *(f"{OF_TEST}{field}" for field in fields)]
            raise UserError(f"--where {condition}: no run has such a key{_near(key, known)}")

    def run_is_wanted(record: Record) -> bool:
        return all(
            matches(record.state if key == "state" else record.settings.get(key), values) for key, values in of_run
        )

    def result_is_wanted(result: Mapping[str, Any]) -> bool:
        fields = {"test": result["name"], **test_of(result).fields} if of_test else {}
        return all(matches(fields.get(key), values) for key, values in of_test)

    return run_is_wanted, result_is_wanted


def in_order(ranking: Ranking, key: str | None, reverse: bool, records: Sequence[Record]) -> Ranking:
    """Best first, or by the key that `--sort` names."""
    if key is None:
        return replace(ranking, rows=ranking.rows[::-1] if reverse else ranking.rows)
    settings = {name for record in records for name in record.settings}
    if key not in (*FIGURES, *settings) and f"{CHOICES}{key}" not in settings:
        known = [*FIGURES, *map(short, settings)]
        raise UserError(f"--sort {key}: there is no such figure or setting{_near(key, known)}")
    return replace(ranking, rows=sorted_rows(ranking, key, reverse=reverse != (key == "result")))


def _near(key: str, known: Sequence[str]) -> str:
    """The nearest name; not the list of all of them, which is long."""
    hint = nearest(key, known)
    return hint if hint.startswith("; did") else "; fsl train --cfg job shows the names of settings"


def json_safe(value: Any) -> Any:
    """What JSON can hold: a config may have dates, and numbers that are none."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(json_safe, value))
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
