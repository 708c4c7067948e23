"""fsl train: compose, build, train, test, report; with -m many times."""

from typing import Any

from fewshot_runner.cli.compose import run_hydra
from fewshot_runner.cli.conf import without_config_dir
from fewshot_runner.errors import UserError
from fewshot_runner.settings import OF_SWEEPS

HELP = ("-h", "--help", "--hydra-help", "--version")


def run(arguments: list[str]) -> None:
    dry_run = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]
    overrides, config_dir = without_config_dir([word for word in arguments if not is_many(word)])
    options = [word for word in overrides if word.startswith("-")]
    many = any(map(is_many, arguments))
    if many and (stray := [word for word in options if word not in HELP]):  # with these, Hydra's own sweep would run
        raise UserError(
            f"{stray[0]}: is not for sweeps; leave it out, or -m: fsl train --cfg job shows the config of one job, "
            "and fsl train -m ... --dry-run lists those of a sweep"
        )
    if many and not options:
        from fewshot_runner.cli.sweeps import multirun

        multirun.run(overrides, config_dir=config_dir, dry_run=dry_run)
        return
    of_sweeps = tuple(f"{group}{sign}" for group in OF_SWEEPS for sign in "=.")
    if not options and (stray := [word for word in overrides if word.startswith(of_sweeps)]):
        raise UserError(f"{stray[0]}: is for sweeps; give -m for one, as in fsl train -m {stray[0]} seed=0,1,2")

    def task(config: dict[str, Any], overrides: list[str]) -> None:
        from fewshot_runner.cli import session  # late: --help and --cfg answer without torch

        if dry_run:
            session.show(config, overrides)
        else:
            session.start(config, overrides)

    run_hydra("train", "fsl", arguments, task, config_dir=config_dir)


def is_many(word: str) -> bool:
    """Whether it asks for a sweep; Hydra takes a part of --multirun for the whole."""
    return word == "-m" or (word.startswith("--m") and "--multirun".startswith(word))
