"""fsl: config-driven experiments in few-shot image classification.

    import fewshot_runner as fsl
    run = fsl.train(fsl.compose(["method=siamese", "dataset=omniglot"]))
    fsl.evaluate(run, ["episode=20way1shot"])
    fsl.predict(run, ["my/new"], support="my/examples")

The commands of `fsl` are thin over these. Importing this package imports neither torch nor Hydra.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot_runner.cli.api import compose, evaluate, load, predict, train

__all__ = ["compose", "evaluate", "load", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fewshot_runner.cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
