"""Run folders written by hand."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fewshot_runner.runs import RunFolder


def result_of(values: Sequence[float], **fields: Any) -> dict[str, Any]:
    """What a summary says of these figures of tasks, by a formula of the test's own; `values` goes to a file."""
    values = np.asarray(values, dtype=float)
    half_width = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        "name": "5way1shot", "dataset": "squares", "split": "classes", "split_hash": "abc", "protocol": "episodes",
        "part": "test", "n_way": 5, "n_shot": 1, "n_query": 15, "within_group": False, "episodes": len(values),
        "episode_seed": 3, "mode": "inductive", "bn_mode": "running", "step": 7, "metric": "accuracy",
        "accuracy": float(values.mean()), "ci95": half_width, "unit": "episodes", "tasks_count": len(values),
        "tasks": values, **fields,
    }  # fmt: skip


def config_of(method: str = "siamese", seed: int = 0, **method_settings: Any) -> dict[str, Any]:
    return {
        "choices": {"dataset": "squares", "method": method},
        "seed": seed,
        "name": "",
        "output_dir": f"somewhere-{method}-{seed}",
        "dataset": {"root": f"/data/{seed}", "cache": f"/cache/{seed}", "source": {"root": f"/data/{seed}"}},
        "method": {"learner": {"_target_": f"somewhere.{method}"}, "optimizer": {"lr": 0.1, **method_settings}},
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RunFolder]:
    """A folder of a run; the task figures of its results go where results say that they are."""
    made = []

    def run_folder(
        config: dict[str, Any] | None = None, *, results: Sequence[dict] = (), state: str = "done", **status: Any
    ) -> RunFolder:
        number = len(made)
        run = RunFolder(tmp_path / "outputs" / "squares-siamese" / f"20260101-{number:06d}-abcdef")
        run.tasks.mkdir(parents=True)
        run.config.write_text(yaml.safe_dump(config or config_of(), sort_keys=False))
        run.status.write_text(json.dumps({"state": state, "step": 1, "seconds": 12.3, **status}))
        kept = []
        for k, result in enumerate(results):
            if isinstance(values := result.get("tasks"), np.ndarray):
                np.save(run.tasks / f"{k}.npy", values.astype(np.float32))
                result = {**result, "tasks": f"tasks/{k}.npy"}
            kept.append(result)
        run.summary.write_text(json.dumps({"results": kept}))
        made.append(run)
        return run

    return run_folder


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    return result_of


@pytest.fixture
def config() -> Callable[..., dict[str, Any]]:
    return config_of
