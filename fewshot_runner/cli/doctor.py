"""fsl doctor: checks the installation, the data folders and the hardware, and says what to do where one is amiss."""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from fewshot_runner.errors import Absent, UserError
from fewshot_runner.report.console import output
from fewshot_runner.report.line import as_markup


def run(arguments: list[str]) -> None:
    argparse.ArgumentParser(
        "fsl doctor", description="Checks the installation, the data folders and the hardware."
    ).parse_args(arguments)
    table = Table(show_header=False, box=None, padding=(0, 2))
    failed = False
    for name, check in CHECKS.items():
        try:
            table.add_row("[green]ok[/]", f"[bold]{name}[/]", as_markup(check()))
        except UserError as error:
            failed = True
            table.add_row("[red]no[/]", f"[bold]{name}[/]", as_markup(str(error)))
    output().print(table)
    if failed:
        raise UserError("some checks failed: see the lines marked no")


def _packages() -> str:
    from fewshot_runner.engine.device import choose_device
    from fewshot_runner.engine.environment import PACKAGES, describe_environment

    environment = describe_environment(seed=0, device=choose_device("auto"))
    versions = environment["versions"]
    missing = [name for name in PACKAGES if versions[name] is None and name != "fewshot-runner"]
    if missing:
        raise UserError(f"not installed: {', '.join(missing)}; run pip install fewshot-runner")
    installed = [f"{name} {version}" for name, version in versions.items() if version is not None]
    return f"Python {environment['python']}, {', '.join(installed)}"


def _hardware() -> str:
    import torch

    from fewshot_runner.cores import available_cores
    from fewshot_runner.engine.device import choose_device
    from fewshot_runner.engine.environment import processor_name

    device = choose_device("auto")
    speed = torch.randn(8, 8, device=device) @ torch.randn(8, 8, device=device)
    if not speed.isfinite().all():
        raise UserError(f"{device}: a matrix product came out wrong; use hardware.device=cpu")
    return f"{device}; {processor_name()}, {available_cores()} cores"


def _configs() -> str:
    from fewshot_runner.cli.build import Builder
    from fewshot_runner.cli.compose import compose
    from fewshot_runner.cli.conf import conf_dir

    for path in sorted((conf_dir() / "method").glob("*.yaml")):
        Builder(compose([f"method={path.stem}"]))
    return f"{conf_dir()}, every method composes"


def _data() -> str:
    from fewshot_runner.cli.compose import compose
    from fewshot_runner.cli.conf import conf_dir

    found: list[str] = []
    damaged: dict[str, None] = {}  # each file once, though several read it
    root = compose(["dataset=omniglot"])["dataset"]["source"]["root"]
    for path in sorted((conf_dir() / "dataset").glob("*.yaml")):
        if "???" in path.read_text():  # the user's own, which has no place yet
            continue
        config = compose([f"dataset={path.stem}"])["dataset"]
        for described in (config["source"], *(config.get("runs") or {}).values()):
            try:
                name, count = _counted(described)
            except Absent:
                continue
            except UserError as error:
                damaged[str(error)] = None
            else:
                found.append(f"{name} ({count:,} images)")
    if damaged:
        raise UserError("; ".join(damaged))
    omniglot = any(each.startswith("omniglot ") for each in found)
    missing = "" if omniglot else "; fsl train dataset=omniglot downloads omniglot (16 MB)"
    return f"{root}: {', '.join(found)}{missing}"


def _counted(described: dict[str, Any]) -> tuple[str, int]:
    """The name of a source and the number of its images, all of them listed and none decoded."""
    from fewshot_runner.cli.targets import ALLOWED_TARGETS, make

    offline = {"download": False} if "download" in described else {}
    source = make({**described, **offline}, "dataset.source", trusted=ALLOWED_TARGETS)
    return source.name, len(source.items())


def _cache() -> str:
    from fewshot_runner.cli.compose import compose

    folder = Path(compose()["dataset"]["cache"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); set FSL_CACHE to another folder") from error
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{folder}: {used / 1e6:.0f} MB used, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"


CHECKS: dict[str, Callable[[], str]] = {
    "packages": _packages,
    "hardware": _hardware,
    "configs": _configs,
    "data": _data,
    "cache": _cache,
}
