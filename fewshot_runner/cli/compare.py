"""fsl compare: runs side by side, from their folders alone."""

import argparse
import csv
import json
import sys
from pathlib import Path

from fewshot_runner.report.compare import compare_table, find_runs, rows_of
from fewshot_runner.report.console import output


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl compare", description="A table of runs: the settings in which they differ, and their results."
    )
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("outputs")], metavar="RUN or DIR")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    options = parser.parse_args(arguments)
    runs, skipped = find_runs(options.runs)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    rows = rows_of(runs)
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.csv:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(rows)
    else:
        output().print(compare_table(rows))
