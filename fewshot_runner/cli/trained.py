"""A trained run, ready to classify: rebuilt from its folder alone, without the data that it was trained on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewshot_runner.cli.build import Builder
from fewshot_runner.data.transforms import Standardise
from fewshot_runner.engine.checkpoint import Checkpoints, DamagedCheckpoint
from fewshot_runner.engine.predict import ImagePipeline
from fewshot_runner.errors import UserError
from fewshot_runner.facts import Facts
from fewshot_runner.methods.base import Method
from fewshot_runner.runs import RunFolder


@dataclass(frozen=True)
class Trained:
    """`checkpoint` holds the weights' step, and the data set and split that they were trained on; `classes` names what
    a trained head answers with.
    """

    config: dict[str, Any]
    method: Method
    pipeline: ImagePipeline
    classes: Sequence[str]
    checkpoint: dict[str, Any]


def best_checkpoint(run: RunFolder, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The best state of `run`, or aloud the newest whole one where that is damaged; raises `UserError`."""
    try:
        checkpoint, damaged = Checkpoints(run.checkpoints).load_best(device)
    except DamagedCheckpoint as error:
        raise UserError(f"{error}; fsl resume {run.quoted} trains what is missing") from error
    if damaged and not any("val" in line for line in run.read_metrics()):
        damaged = ["there is no best state before the first validation", *damaged[1:]]
    for line in damaged:
        print(f"fsl: passed over: {line}; using the state of step {checkpoint['step']} instead", file=sys.stderr)
    return checkpoint


def by_itself(bn_mode: str) -> str:
    """The mode in which a run was judged and its best step chosen, for queries of which none may see another."""
    return "support" if bn_mode == "transductive" else bn_mode


def load_trained(run: RunFolder, *, hardware: dict[str, Any] | None = None) -> Trained:
    """The best weights of `run`; `hardware` replaces settings of the run's own. Raises `UserError`."""
    config = run.read_config()
    config["hardware"] = {**config["hardware"], **(hardware or {"device": "auto"})}
    if "weights" in config["model"]:  # the checkpoint brings them
        config["model"] = {**config["model"], "weights": None}
    builder = Builder(config)
    checkpoint = best_checkpoint(run, builder.hardware.device)
    facts = Facts(**{**checkpoint["facts"], "image_shape": tuple(checkpoint["facts"]["image_shape"])})
    method = builder.method(facts)
    method.load_state_dict(checkpoint["method"])
    method.bn_mode = by_itself(config["eval"].get("bn_mode", method.bn_mode))
    dataset = config["dataset"]
    pipeline = ImagePipeline(
        image_shape=facts.image_shape,
        shorter_side=dataset.get("shorter_side"),
        resample=dataset.get("resample", "bilinear"),
        standardise=Standardise(
            invert=dataset["invert"], centre=dataset.get("centre", False), mean=dataset["mean"], std=dataset["std"]
        ),
        hardware=builder.hardware,
    )
    return Trained(config, method.eval(), pipeline, checkpoint.get("classes", ()), checkpoint)
