"""fsl eval: evaluate a trained run, as it was tested or otherwise, and add the figures to its results."""

from fewshot_runner.cli.conf import without_config_dir
from fewshot_runner.errors import UserError
from fewshot_runner.runs import RunFolder

USAGE = """usage: fsl eval run=RUN [overrides]

Evaluates the best weights of a run and adds the figures to its summary. Without overrides, all its tests again.

  fsl eval run=RUN episode=5way5shot            another episode shape
  fsl eval run=RUN episode.within_group=true    classes of one group (an alphabet)
  fsl eval run=RUN eval.protocol=runs           the data set's fixed runs
  fsl eval run=RUN dataset=omniglot             other data, at the run's image size
  fsl eval run=RUN eval.seed=1                  other episodes of the same kind

--config-dir FOLDER is a config folder of your own, whose data sets and episodes can be chosen as well."""


def run(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    arguments, config_dir = without_config_dir(arguments)
    named = [argument.removeprefix("run=") for argument in arguments if argument.startswith("run=")]
    overrides = [argument for argument in arguments if not argument.startswith("run=")]
    if options := [word for word in overrides if word.startswith("-")]:
        raise UserError(f"{options[0]}: fsl eval has no such option; fsl eval --help shows what it takes")
    if len(named) != 1:
        raise UserError("fsl eval needs one run=RUN, the folder of a trained run; fsl eval --help says more")
    folder = RunFolder.open(named[0])

    from fewshot_runner.cli.evaluation import evaluate_run
    from fewshot_runner.report.console import output  # late: a wrong folder is refused without torch
    from fewshot_runner.report.results import results_table

    results = evaluate_run(folder, overrides, config_dir=config_dir)
    console = output()
    console.print(results_table(results, title=folder.name, width=console.width), soft_wrap=True)
    print(f"run: {folder.path}")
