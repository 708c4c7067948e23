"""The program from Python; the commands are thin over it.

One call at a time in a process: Hydra's state, torch's random numbers and its number of threads are the process's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_runner.cli import predict as prediction
from fewshot_runner.cli import session
from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.evaluation import evaluate_run
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.data.decode import combined
from fewshot_runner.engine.predict import Prediction
from fewshot_runner.methods.base import Method
from fewshot_runner.runs import RunFolder

__all__ = ["compose", "evaluate", "load", "predict", "train"]


def train(config: dict[str, Any]) -> Path:
    """Trains and tests the run that `compose` made, and returns its folder. Raises `UserError`."""
    return session.start(config, []).path


def load(run: str | Path) -> Method:
    """The best weights of a run as a method that is ready to `classify`. Raises `UserError`."""
    return load_trained(RunFolder.open(run)).method


def evaluate(run: str | Path, overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Evaluates a run as `fsl eval` does, and returns the results that it added. Raises `UserError`."""
    return evaluate_run(RunFolder.open(run), list(overrides))


def predict(
    run: str | Path, images: str | Path | Sequence[str | Path], *, support: str | Path | None = None, top: int = 3
) -> list[Prediction]:
    """The `top` likeliest classes of each picture, as `fsl predict` names them.

    `images` is a file or a folder of them, or several. The classes are the sub-folders of `support`, or without it
    those of a trained head. Raises `UserError`, which names all pictures that cannot be read.
    """
    several = [images] if isinstance(images, str | Path) else images
    predictions, refused = prediction.answers(RunFolder.open(run), [Path(each) for each in several], support, top=top)
    if refused:
        raise combined(refused)
    return predictions
