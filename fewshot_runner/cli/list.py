"""fsl list: what the config folders offer, a line each, and the settings of one choice.

The folders are the list; nothing is kept by hand.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.syntax import Syntax
from rich.table import Table

from fewshot_runner.cli.arguments import nearest
from fewshot_runner.cli.conf import conf_dir, own_configs
from fewshot_runner.errors import UserError
from fewshot_runner.report.console import output
from fewshot_runner.report.line import as_markup

OF_EVERY_RUN = "train"


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("fsl list", description="What there is to compose a run of, and its settings.")
    parser.add_argument(
        "group",
        nargs="?",
        metavar="GROUP or GROUP=CHOICE",
        help="one group alone, as dataset, method, experiment, sweep; of a choice, as method=maml, its settings with "
        f"their defaults and comments, and of {OF_EVERY_RUN} those of every run",
    )
    parser.add_argument("--config-dir", type=Path, help="a config folder of your own, listed as well")
    options = parser.parse_args(arguments)
    folders = [conf_dir()] + ([own_configs(options.config_dir)] if options.config_dir else [])
    groups = sorted({entry.name for folder in folders for entry in subfolders(folder)})
    group, _, choice = (options.group or "").partition("=")
    if options.group == OF_EVERY_RUN:
        show_settings(folders, f"{OF_EVERY_RUN}.yaml")
        return
    if options.group is not None and group not in groups:
        raise UserError(f"fsl list {options.group}: there is no such group{nearest(group, [*groups, OF_EVERY_RUN])}")
    if choice:
        known = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        if choice not in known:
            raise UserError(f"fsl list {group}={choice}: there is no such choice{nearest(choice, known)}")
        show_settings(folders, f"{group}/{choice}.yaml")
        return
    for name in [group] if group else groups:
        table = Table(title=as_markup(name), title_justify="left", show_header=False, box=None, padding=(0, 2))
        for path in (path for folder in folders for path in sorted((folder / name).glob("*.yaml"))):
            table.add_row(f"[bold]{as_markup(f'{name}={path.stem}')}[/]", as_markup(purpose(path)))
        if table.row_count:
            output().print(table, "")
    print(f"settings: fsl list GROUP=CHOICE has those of a choice, fsl list {OF_EVERY_RUN} those of every run")


def show_settings(folders: Sequence[Path], file: str) -> None:
    """The file itself: its comments say what the keys mean."""
    path = next(folder / file for folder in folders if (folder / file).is_file())
    print(f"# {path}")
    console, text = output(), path.read_text()
    if console.is_terminal:
        console.print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        print(text, end="")


def subfolders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()]


def purpose(path: Path) -> str:
    """The first comment of a config that is no directive."""
    for line in path.read_text().splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ")
    return ""
