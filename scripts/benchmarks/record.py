"""What a benchmark found: kept as JSON with every sample, shown as a table."""

import json
import os
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.measuring import Bench, Figure
from fewshot_runner.engine.environment import describe_environment
from fewshot_runner.report.console import output

HEADINGS = ("figure", "ours", "against", "result", "target", "")
RIVALS = ("easyfsl", "pytorch-metric-learning")


@dataclass
class Record:
    """The machine and the figures. `seconds` is how long it took to measure them."""

    environment: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def begin(cls, bench: Bench) -> "Record":
        described = describe_environment(seed=0, device=torch.device("cpu"))
        del described["seed"]
        described["versions"] |= {package: installed(package) for package in RIVALS}
        own = {"threads": bench.threads, "quick": bench.quick, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        return cls({**described, **own, "began": datetime.now(UTC).isoformat(timespec="seconds")})

    @classmethod
    def read(cls, path: Path) -> "Record":
        content = json.loads(path.read_text())
        kept = {each.name for each in fields(Figure)}
        figures = [Figure(**{key: line[key] for key in kept}) for line in content["figures"]]
        return cls(content["environment"], figures, content["seconds"])

    def write(self, path: Path) -> None:
        lines = [figure.as_json() for figure in self.figures]
        content = {"environment": self.environment, "seconds": self.seconds, "figures": lines}
        path.write_text(json.dumps(content, indent=1) + "\n")

    @property
    def all_reached(self) -> bool:
        return all(figure.reached is not False for figure in self.figures)

    def rows(self) -> list[tuple[str, ...]]:
        return [row(figure) for figure in self.figures]

    def show(self) -> None:
        table = Table(*HEADINGS, box=SIMPLE_HEAD)
        for cells in self.rows():
            table.add_row(*cells, style="red" if cells[-1] == "missed" else None)
        output().print(table)
        print(self.machine())

    def markdown(self) -> str:
        lines = [HEADINGS, ("---",) * len(HEADINGS), *self.rows()]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{self.machine()}"

    def machine(self) -> str:
        here, versions = self.environment, self.environment["versions"]
        named = ", ".join(f"{package} {versions[package]}" for package in ("torch", *RIVALS) if versions[package])
        quick = "; quick: these figures mean nothing" if here["quick"] else ""
        return f"{here['processor']}, {here['cores']} cores, {here['threads']} threads; {named}; {here['began']}{quick}"


def row(figure: Figure) -> tuple[str, ...]:
    medians = figure.medians
    ours, against = (amount(medians[name], figure.unit) for name in (figure.ours, figure.against))
    sign = "at least" if figure.at_least else "at most"
    target = "" if figure.target is None else f"{sign} {shown(figure.target, figure.shown_as)}"
    verdict = {True: "reached", False: "missed", None: ""}[figure.reached]
    note = f" ({figure.note})" if figure.note else ""
    return (
        figure.name + note,
        f"{figure.ours}: {ours}",
        f"{figure.against}: {against}",
        shown(figure.value, figure.shown_as),
        target,
        verdict,
    )


def shown(value: float, shown_as: str) -> str:
    if shown_as == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.3g} x" if shown_as == "x" else f"{value:.2f} {shown_as}"


def amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.4g} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e6:.3g} µs"


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
