"""fsl list: what the config folders offer, a line each. The folders are the list; nothing is kept by hand."""

import argparse
from pathlib import Path

from rich.table import Table

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.errors import UserError
from fewshot_runner.report.console import output


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("fsl list", description="What there is to compose a run of.")
    parser.add_argument("group", nargs="?", help="one of them alone, as dataset, method, experiment, sweep")
    parser.add_argument("--config-dir", type=Path, help="a config folder of your own, listed as well")
    options = parser.parse_args(arguments)
    folders = [conf_dir()] + ([options.config_dir] if options.config_dir else [])
    groups = sorted({entry.name for folder in folders for entry in subfolders(folder)})
    if options.group is not None and options.group not in groups:
        raise UserError(f"fsl list {options.group}: there is no such group{nearest(options.group, groups)}")
    for group in groups if options.group is None else [options.group]:
        table = Table(title=group, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for folder in folders:
            for path in sorted((folder / group).glob("*.yaml")):
                table.add_row(f"[bold]{group}={path.stem}[/]", purpose(path))
        if table.row_count:
            output().print(table, "")


def subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"--config-dir={folder}: there is no such folder")
    return [entry for entry in folder.iterdir() if entry.is_dir()]


def purpose(path: Path) -> str:
    """The first comment of a config that is no directive."""
    for line in path.read_text().splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").replace("[", "\\[")
    return ""
