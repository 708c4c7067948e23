"""What is noted of the surroundings of a run."""

import os
import subprocess

import torch

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
