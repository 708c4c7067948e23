"""Evaluating a trained run under a config that may differ from its own."""

from pathlib import Path
from typing import Any

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import overlay
from fewshot_runner.cli.session import build, held
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.engine.train import keep_result
from fewshot_runner.errors import UserError
from fewshot_runner.runs import RunFolder

MAY_CHANGE = ("dataset", "episode", "hardware")
SEEN_BY_THE_NETWORK = ("image_size", "channels", "invert", "mean", "std")


def evaluate_run(run: RunFolder, overrides: list[str]) -> list[dict[str, Any]]:
    """Evaluates the best weights of `run`, adds the figures to its summary, and returns them."""
    saved = run.read_config()
    config = evaluation_config(saved, overrides)
    trained = load_trained(run, hardware=config["hardware"])
    with held(run), StopRequest() as stop:
        builder = build(config, Narrator(), stop)
        refuse_trained_classes(builder, trained.checkpoint, {**saved, "hardware": config["hardware"]})
        builder.check_tests(trained.method)
        results = []
        for name, protocol in builder.tests().items():
            evaluation = evaluate(trained.method, protocol, hardware=builder.hardware, between=stop.check)
            step = trained.checkpoint["step"]
            results.append(keep_result(evaluation, name, run, stamp=builder.stamp(), step=step))
        summary = run.read_summary()
        run.write_summary({**summary, "results": merge(summary["results"], results)})
    return results


def evaluation_config(saved: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The run's config with the overrides on top.

    Other data is shown to the network as its own was; and who asks for one figure gets that one, without the further
    tests of the data set.
    """
    config = overlay(saved, overrides, MAY_CHANGE)
    given = {override.split("=")[0] for override in overrides}
    if "dataset.root" in given:  # the saved config is resolved, so its sources do not follow by themselves
        root = str(Path(config["dataset"]["root"]).expanduser().absolute())
        dataset = config["dataset"]
        moved_runs = {name: {**runs, "root": root} for name, runs in (dataset.get("runs") or {}).items()}
        source = {**dataset["source"], "root": root}
        config["dataset"] = {**dataset, "source": source, **({"runs": moved_runs} if moved_runs else {})}
    if "dataset" in given:
        kept = {key: saved["dataset"][key] for key in SEEN_BY_THE_NETWORK if f"dataset.{key}" not in given}
        config["dataset"] = {**config["dataset"], **kept}
    if any(key.split(".")[0] in ("episode", "eval") for key in given):
        config["dataset"] = {**config["dataset"], "tests": {}}
    return config


def refuse_trained_classes(builder: Builder, checkpoint: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raises `UserError` where the test would show classes that the run was trained or selected on."""
    stamp = builder.stamp()
    if stamp["dataset"] != checkpoint["dataset"] or stamp["split_hash"] == checkpoint["split_hash"]:
        return
    try:
        source = Builder(saved).source()
    except UserError:  # the data of the training are no longer where they were
        source = builder.dataset.source
    split = source.split(saved["dataset"]["split"])
    known = {*split.classes["train"], *split.classes["val"]}
    if seen := sorted(known & set(builder.dataset.split.classes["test"])):
        raise UserError(
            f"dataset.split={stamp['split']}: {len(seen)} of its test classes ({seen[0]} ...) were used in training "
            f"this run under the split {checkpoint['split']}; the figure would flatter. Train a run with "
            f"dataset.split={stamp['split']}, or evaluate on its own split"
        )


def merge(earlier: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """New results behind the earlier ones; one of the same tasks takes the place of its former figure."""

    def tasks(result: dict[str, Any]) -> str:
        figures = ("name", "step", result["metric"], "ci95", "tasks", "further", "confusion")
        return str(sorted((key, value) for key, value in result.items() if key not in figures))

    replaced = {tasks(result) for result in new}
    return [result for result in earlier if tasks(result) not in replaced] + new
