"""What a sweep leaves behind."""

import json
from pathlib import Path

from fewshot_runner.runs import RunFolder


def manifest_of(output_dir: Path) -> dict:
    [path] = (output_dir / "sweeps").glob("*/manifest.json")
    return json.loads(path.read_text())


def runs_below(output_dir: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(output_dir.glob("*/*/config.yaml"))]


def has_begun(run: RunFolder) -> bool:
    return run.status.is_file() and run.read_status()["step"] > 0
