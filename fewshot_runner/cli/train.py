"""fsl train: compose, build, train, test, report; with -m many times."""

import re
from typing import Any

from fewshot_runner.cli.compose import asked_of_hydra, run_hydra
from fewshot_runner.cli.conf import without_config_dir
from fewshot_runner.errors import UserError
from fewshot_runner.settings import OF_SWEEPS


def run(arguments: list[str]) -> None:
    dry_run = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]
    others, config_dir = without_config_dir(arguments)
    asked = asked_of_hydra(others)
    options = [name for name, value in vars(asked).items() if value and name not in ("overrides", "multirun")]
    if asked.multirun and not options:
        from fewshot_runner.cli.sweeps import multirun

        multirun.run(asked.overrides, config_dir=config_dir, dry_run=dry_run)
        return
    if asked.multirun and not (asked.help or asked.hydra_help):  # with these, Hydra's own sweep would run
        raise UserError(
            f"--{options[0].replace('_', '-')}: is not for sweeps; leave it out, or -m: fsl train --cfg job shows the "
            "config of one job, and fsl train -m ... --dry-run lists those of a sweep"
        )
    stray = [word for word in asked.overrides if re.match(rf"[+~]*({'|'.join(OF_SWEEPS)})([=.@]|$)", word)]
    if stray and not options:
        raise UserError(f"{stray[0]}: is for sweeps; leave it out, or give -m, as in fsl train -m seed=0,1,2")

    def task(config: dict[str, Any], overrides: list[str]) -> None:
        from fewshot_runner.cli import session  # late: --help and --cfg answer without torch

        if dry_run:
            session.show(config, overrides)
        else:
            session.start(config, overrides)

    run_hydra("train", "fsl", arguments, task, config_dir=config_dir)
