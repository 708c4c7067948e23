"""Evaluating a trained run under a config that may differ from its own."""

import json
from collections.abc import Collection
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from fewshot_runner.cli.arguments import check_arguments
from fewshot_runner.cli.build import short_keys
from fewshot_runner.cli.compose import absolute, overlay
from fewshot_runner.cli.protocols import KINDS, ignored
from fewshot_runner.cli.schema import EpisodeConfig, EvalConfig, TestConfig
from fewshot_runner.cli.seen import refuse_seen
from fewshot_runner.cli.session import build
from fewshot_runner.cli.trained import load_trained
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.engine.evaluate import evaluate
from fewshot_runner.engine.log import Narrator
from fewshot_runner.engine.results import Result, keep_result, merge
from fewshot_runner.engine.stopping import StopRequest
from fewshot_runner.errors import UserError
from fewshot_runner.runs import RunFolder

GROUPS = ("dataset", "episode", "hardware")  # of which another member may be chosen, and keys of them set
KEYS = ("eval", "trusted_packages")
SEEN_BY_THE_NETWORK = ("image_size", "shorter_side", "resample", "channels", "invert", "centre", "mean", "std")


def evaluate_run(run: RunFolder, overrides: list[str], *, config_dir: Path | None = None) -> list[Result]:
    """Evaluates the best weights of `run`, adds the figures to its summary, and returns them.

    `config_dir` is a config folder of the user's own, where other data may be described.
    """
    saved = run.read_config()
    config = evaluation_config(saved, overrides, config_dir=config_dir)
    trained = load_trained(run, hardware=config["hardware"])
    narrator = Narrator()
    with run.held(), StopRequest() as stop:
        builder = build(config, narrator, stop)
        refuse_seen(builder, trained.checkpoint)
        provenance = builder.dataset.provenance
        if provenance.changes(trained.checkpoint):  # copies of what this run has seen are refused, others do not count
            provenance = replace(provenance, copies=None)
        data = provenance.entries() | shown_otherwise(config, saved) | computed_otherwise(config, saved)
        builder.plan.check_method(trained.method)
        protocols = builder.protocols(head=trained.classes)
        builder.plan.check_tests(protocols)
        for remark in builder.plan.remarks_on_images(protocols):
            narrator.say(remark)
        results, summary, step = [], run.read_summary(), trained.checkpoint["step"]
        earlier = summary["results"]
        for name, protocol in builder.tests(trained.classes).items():
            with narrator.doing(f"test {name}"):
                evaluation = evaluate(trained.method, protocol, hardware=builder.hardware, between=stop.check)
            results.append(keep_result(evaluation, name, run, data=data, step=step, earlier=earlier))
            run.write_summary({**summary, "results": merge(earlier, results)})  # kept whatever becomes of the next
    return results


def evaluation_config(saved: dict[str, Any], overrides: list[str], *, config_dir: Path | None = None) -> dict[str, Any]:
    """The run's config with the overrides on top.

    Other data is shown to the network as its own was; and who asks for one figure gets that one, without the further
    tests of the data set.
    """
    config = overlay(saved, overrides, groups=GROUPS, keys=KEYS, config_dir=config_dir)
    given = {override.lstrip("+~").split("=")[0] for override in overrides}
    config["dataset"] = sources_following(config["dataset"], given)
    if "dataset" in given:
        kept = {
            key: saved["dataset"][key]
            for key in SEEN_BY_THE_NETWORK
            if key in saved["dataset"] and f"dataset.{key}" not in given
        }
        config["dataset"] = {**config["dataset"], **kept}
    if any(key.split(".")[0] in ("episode", "eval") for key in given):
        config["dataset"] = {**config["dataset"], "tests": {}}
    refuse_ignored(config, overrides)
    return config


def sources_following(dataset: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The data set with the short keys among `given` in its sources as well.

    A saved config is resolved, so they do not follow by themselves.
    """
    told = {key.split(".")[1] for key in given if key.startswith("dataset.")}
    keys = {key for key in short_keys(dataset) & told if f"dataset.source.{key}" not in given}
    if not keys:
        return dataset

    def follow(source: dict[str, Any]) -> dict[str, Any]:
        return source | {key: like(source[key], dataset[key]) for key in keys & source.keys()}

    def like(before: Any, now: Any) -> Any:
        return absolute(now) if Path(str(before)).is_absolute() else now

    runs = {name: follow(each) for name, each in (dataset.get("runs") or {}).items()}
    return {**dataset, "source": follow(dataset["source"]), **({"runs": runs} if runs else {})}


def refuse_ignored(config: dict[str, Any], overrides: list[str]) -> None:
    """Raises `UserError` where an override asks for what the protocol would pass over.

    What the run's own config says of episodes is no such wish.
    """
    for section, kind in (("episode", EpisodeConfig), ("eval", EvalConfig)):
        check_arguments(kind, config[section], key=section)
    test = TestConfig(**config["episode"], **config["eval"])
    for setting, override in ignored(overrides, test).items():
        own = f"eval.protocol={test.protocol}"
        using = [f"eval.protocol={name}" for name, kind in KINDS.items() if setting in kind.uses]
        if own in using:  # with a number of shots
            using, own = ["episode.n_shot=1"], f"{own} with episode.n_shot=all"
        if KINDS[test.protocol].of_known_classes:
            others = "eval.protocol=episodes"
            using = [each + " (of other classes than those of training)" * (each == others) for each in using]
        raise UserError(
            f"{override}: {own} ignores it, so this would change nothing; leave it out, or add {' or '.join(using)}"
        )


def shown_otherwise(config: dict[str, Any], saved: dict[str, Any]) -> dict[str, str]:
    """What a result says where the network is shown images otherwise than in its own run, else nothing.

    A setting that the run of an earlier version does not know stood at its default.
    """
    defaults = {name: parameter.default for name, parameter in signature(Dataset).parameters.items()}
    now, own = ({**defaults, **each["dataset"]} for each in (config, saved))
    changed = [f"{key}={json.dumps(now[key])}" for key in SEEN_BY_THE_NETWORK if now[key] != own[key]]
    return {"shown": " ".join(changed)} if changed else {}


def computed_otherwise(config: dict[str, Any], saved: dict[str, Any]) -> dict[str, str]:
    """What a result says where it is computed in another precision than its run, else nothing."""
    now, own = (each["hardware"]["precision"] for each in (config, saved))
    return {"precision": now} if now != own else {}
