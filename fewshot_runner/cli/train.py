"""fsl train: compose, build, train, test, report."""

from typing import Any

from fewshot_runner.cli.compose import run_hydra


def run(arguments: list[str]) -> None:
    dry_run = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]

    def task(config: dict[str, Any], overrides: list[str]) -> None:
        from fewshot_runner.cli import session  # late: --help and --cfg answer without torch

        if dry_run:
            session.show(config)
        else:
            session.start(config, overrides)

    run_hydra("train", "fsl", arguments, task)
