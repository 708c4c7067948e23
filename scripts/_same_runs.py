"""Small runs of every method, and whether two of them ended with the same bits."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from fewshot_runner.cli.compose import compose
from fewshot_runner.engine.checkpoint import load
from fewshot_runner.runs import RunFolder

# A small world, saved often: what is shown is where a run goes on, not how well it learns.
SETTINGS = [
    "dataset=glyphs", "++dataset.source.alphabets=6", "++dataset.source.characters=8", "++dataset.source.drawers=8",
    "dataset.tests=null", "dataset.image_size=16", "model=conv4", "model.widths=[8,8]", "episode=5way1shot",
    "episode.n_query=5", "hardware=cpu", "hardware.threads=1", "trainer.max_steps=240", "trainer.val_every=20",
    "trainer.val_episodes=20",
    "trainer.checkpoint_every=3", "trainer.log_every=4", "trainer.patience=null", "eval.episodes=200",
]  # fmt: skip
SAMPLER = {  # samplers as small as the world, of the keys that a method's sampler has
    "n_way": 4, "n_shot": 1, "n_query": 2, "episodes": 1, "n_classes": 8, "n_images": 3, "n_groups": 2, "n_pairs": 16,
}  # fmt: skip
TIMING = ("seconds", "images_per_second")  # of summary.json


def overrides(method: str, folder: Path) -> list[str]:
    """What makes a small run of `method`."""
    sampler = compose([f"method={method}"])["method"]["sampler"]
    smaller = [f"method.sampler.{key}={value}" for key, value in SAMPLER.items() if key in sampler]
    return [f"method={method}", *SETTINGS, *smaller, f"output_dir={folder}"]


def difference(expected: RunFolder, actual: RunFolder) -> tuple[int, list[str]]:
    """How many values of two runs were compared, and a line for each that is not the same."""
    first, second = dict(contents(expected)), dict(contents(actual))
    names = first.keys() | second.keys()
    return len(names), sorted(f"{name}" for name in names if first.get(name) != second.get(name))


def contents(run: RunFolder) -> Iterator[tuple[str, object]]:
    """All that must not differ, by name: checkpoints tensor by tensor, metrics, results, the figures of each task."""
    steps = sorted(run.checkpoints.glob("*.pt"))
    assert any(path.name.startswith("step-") for path in steps), run.checkpoints
    for path in steps:
        yield from leaves(path.name, load(path))
    for number, line in enumerate(run.read_metrics()):
        yield f"metrics.jsonl line {number}", json.dumps({key: value for key, value in line.items() if key != "wall"})
    for key, value in run.read_summary().items():
        if key not in TIMING:
            yield f"summary.json {key}", json.dumps(value)
    for path in run.tasks.iterdir():
        yield f"tasks/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
    for path in run.path.rglob(".*.tmp"):
        yield f"left behind: {path.relative_to(run.path)}", True


def leaves(name: str, state: object) -> Iterator[tuple[str, object]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(f"{name} {key}", value)
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from leaves(f"{name} {number}", value)
    elif isinstance(state, torch.Tensor):
        yield name, (str(state.dtype), tuple(state.shape), state.contiguous().numpy().tobytes())
    else:
        yield name, repr(state)
