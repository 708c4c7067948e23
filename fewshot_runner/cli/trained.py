"""A trained run, ready to classify: rebuilt from its folder alone, without the data that it was trained on."""

from dataclasses import dataclass
from typing import Any

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import read_yaml
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine.checkpoint import Checkpoints, DamagedCheckpoint
from fewshot_runner.engine.device import Hardware
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import Method
from fewshot_runner.runs import RunFolder


@dataclass(frozen=True)
class Trained:
    """`checkpoint` holds the weights' step, and the data set and split that they were trained on."""

    run: RunFolder
    config: dict[str, Any]
    method: Method
    facts: Facts
    hardware: Hardware
    standardise: Standardise
    checkpoint: dict[str, Any]


def load_trained(run: RunFolder, *, hardware: dict[str, Any] | None = None) -> Trained:
    """The best weights of `run`; `hardware` replaces settings of the run's own. Raises `UserError`."""
    config = read_yaml(run.config)
    config["hardware"] = {**config["hardware"], **(hardware or {"device": "auto"})}
    builder = Builder(config)
    try:
        checkpoint = Checkpoints(run.checkpoints).load_best(builder.hardware.device)
    except DamagedCheckpoint as error:
        raise UserError(f"{error}; fsl resume {run.path} writes it anew if training can go on") from error
    facts = Facts(**{**checkpoint["facts"], "image_shape": tuple(checkpoint["facts"]["image_shape"])})
    method = builder.method(facts)
    method.load_state_dict(checkpoint["method"])
    dataset = config["dataset"]
    standardise = Standardise(invert=dataset["invert"], mean=dataset["mean"], std=dataset["std"])
    return Trained(run, config, method.eval(), facts, builder.hardware, standardise, checkpoint)
