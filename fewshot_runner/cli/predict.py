"""fsl predict: classify a user's own pictures against a folder of labelled examples."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_runner.errors import UserError
from fewshot_runner.runs import RunFolder

if TYPE_CHECKING:
    from fewshot_runner.engine.predict import Prediction, Unknown


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "fsl predict",
        description="Classifies pictures with a trained run. The classes are the sub-folders of the support folder, "
        "each with one example or more; they need not have been trained on. Without a support folder, a method with "
        "a trained head names the classes of its training. A run that was tested by retrieval goes by the most similar "
        "example, and says where none is similar enough, if it knows a label for that. Scores are the method's "
        "probabilities over the classes.",
    )
    parser.add_argument("run", help="the run folder")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of them")
    parser.add_argument("--support", metavar="DIR", help="a sub-folder of examples for each class")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="how many classes to name (default: 3)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    options = parser.parse_args(arguments)
    if options.top < 1:
        raise UserError(f"--top={options.top}: give a whole number of 1 or more")
    folder = RunFolder.open(options.run)

    from fewshot_runner.cli.trained import load_trained  # late: a wrong folder is refused without torch
    from fewshot_runner.data.decode import together
    from fewshot_runner.data.place import locate, open_files
    from fewshot_runner.data.sources.folder import Folder
    from fewshot_runner.engine.predict import identify, pictures_of, predict, recognise

    support = None
    if options.support is not None:
        open_files(*locate(options.support, key="--support"), key="--support")  # refused as what was given
        support = Folder(path=options.support)
    pictures = pictures_of(options.images)
    trained = load_trained(folder)
    how: dict[str, Any] = {"pipeline": trained.pipeline, "top": options.top}
    if support is not None and trained.config["eval"]["protocol"] == "retrieval":
        answers = identify(trained.method, support, pictures, unknown=unknown_of(folder), **how)
    elif support is not None:
        answers = predict(trained.method, support, pictures, **how)
    elif trained.classes:
        answers = recognise(trained.method, trained.classes, pictures, **how)
    else:
        raise UserError(
            f"{options.run}: this method has no head of its own; give --support DIR, a folder with a sub-folder of "
            "examples for each class to choose from"
        )
    predictions, refused = answers
    if predictions:
        show(predictions, options)
    if refused:  # what could be read is answered all the same
        raise together(refused)


def unknown_of(run: RunFolder) -> "Unknown | None":
    """The label that means none of the known, where the run's own test fitted the similarity at which it stands."""
    from fewshot_runner.engine.predict import Unknown

    own = next((result for result in run.read_summary()["results"] if result["protocol"] == "retrieval"), None)
    if own is None:
        raise UserError(f"{run.path}: it was not tested yet, which says whom it does not know; fsl resume {run.quoted}")
    if own["unknown"] is None:
        return None
    return Unknown(own["unknown"], own["further"]["threshold"])


def show(predictions: Sequence["Prediction"], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps([prediction.as_dict() for prediction in predictions], indent=2))
    elif options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "rank", "class", "score"])
        for prediction in predictions:
            for rank, (name, score) in enumerate(prediction.ranking, start=1):
                writer.writerow([prediction.image, rank, name, f"{score:.6f}"])
    else:
        from fewshot_runner.report.console import output
        from fewshot_runner.report.predictions import prediction_table

        console = output()
        rows = [prediction.as_dict() for prediction in predictions]
        console.print(prediction_table(rows, width=console.width), soft_wrap=True)
