"""fsl predict: classify a user's own pictures against a folder of labelled examples."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_runner.errors import UserError
from fewshot_runner.runs import RunFolder

if TYPE_CHECKING:
    from fewshot_runner.engine.predict import Answers, Prediction, Unknown


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl predict",
        description="Classifies pictures with a trained run. The classes are the sub-folders of the support folder, "
        "each with one example or more; they need not have been trained on. Without a support folder, a method with "
        "a trained head names the classes of its training. A run tested by retrieval picks the most similar example "
        "and, if it has a label for unknowns, says when none is similar enough. Scores are the method's probabilities "
        "over the classes.",
    )
    parser.add_argument("run", help="the run folder")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of them")
    parser.add_argument("--support", metavar="DIR", help="a sub-folder of examples for each class")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="how many classes to name (default: 3)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    options = parser.parse_args(arguments)
    predictions, refused = answers(RunFolder.open(options.run), options.images, options.support, top=options.top)
    if predictions:
        show(predictions, options)
    if refused:  # what could be read is answered all the same
        from fewshot_runner.data.decode import combined

        raise combined(refused)


def answers(run: RunFolder, images: Sequence[Path], support: str | Path | None, *, top: int) -> "Answers":
    """Of pictures, or folders of them, among the classes of `support`, or without it among those of a trained head."""
    if top < 1:
        raise UserError(f"--top={top}: give a whole number of 1 or more")
    from fewshot_runner.cli.trained import load_trained  # late: a wrong folder is refused without torch
    from fewshot_runner.data.place import locate, open_files
    from fewshot_runner.data.sources.folder import Folder
    from fewshot_runner.engine.predict import identify, pictures_of, predict, recognise

    examples = None
    if support is not None:
        open_files(*locate(support, key="--support"), key="--support")  # refused as what was given
        examples = Folder(path=support)
    pictures, remarks = pictures_of(images)
    if examples is not None:
        remarks += [f"--support: {line}" for line in examples.left_out()]
    for line in remarks:
        print(line, file=sys.stderr)
    trained = load_trained(run)
    how: dict[str, Any] = {"pipeline": trained.pipeline, "top": top}
    if examples is not None and trained.config["eval"]["protocol"] == "retrieval":
        return identify(trained.method, examples, pictures, unknown=unknown_of(run), **how)
    if examples is not None:
        return predict(trained.method, examples, pictures, **how)
    if trained.classes:
        return recognise(trained.method, trained.classes, pictures, **how)
    raise UserError(
        f"{run.path}: this method has no head of its own; give --support DIR, a folder with a sub-folder of examples "
        "for each class to choose from"
    )


def unknown_of(run: RunFolder) -> "Unknown | None":
    """The label that means none of the known, where the run's own test fitted the similarity at which it stands."""
    from fewshot_runner.engine.predict import Unknown

    own = next((result for result in run.read_summary()["results"] if result["protocol"] == "retrieval"), None)
    if own is None:
        raise UserError(
            f"{run.path}: not tested yet, so its threshold for unknowns is not set; fsl resume {run.quoted}"
        )
    if own["unknown"] is None:
        return None
    return Unknown(own["unknown"], own["further"]["threshold"])


def show(predictions: Sequence["Prediction"], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps([prediction.as_dict() for prediction in predictions], indent=2))
    elif options.csv:
        from fewshot_runner.report.csv_text import csv_text

        rows = [
            {"image": prediction.image, "rank": rank, "class": name, "score": f"{score:.6f}"}
            for prediction in predictions
            for rank, (name, score) in enumerate(prediction.ranking, start=1)
        ]
        sys.stdout.write(csv_text(rows))
    else:
        from fewshot_runner.report.console import output
        from fewshot_runner.report.predictions import prediction_table

        console = output()
        rows = [prediction.as_dict() for prediction in predictions]
        console.print(prediction_table(rows, width=console.width), soft_wrap=True)
