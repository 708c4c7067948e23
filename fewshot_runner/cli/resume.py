"""fsl resume: go on with an interrupted run, with the bits it would have had."""

import argparse

from fewshot_runner.runs import RunFolder


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl resume",
        description="Goes on from a run's last checkpoint, in the same folder. On the same machine, versions and "
        "thread count it ends with the same weights and figures as a run that was never interrupted.",
    )
    parser.add_argument("run", help="the run folder")
    folder = RunFolder.open(parser.parse_args(arguments).run)
    from fewshot_runner.cli import session  # late: a wrong folder is refused without torch

    session.resume(folder)
