"""What a sweep leaves behind."""

import json
from pathlib import Path

from fewshot_runner.runs import RunFolder


def manifest_of(output_dir: Path) -> dict:
    return json.loads(_manifest_path(output_dir).read_text())


def jobs_of(output_dir: Path) -> list[dict]:
    """What the manifest says of each job; `run` becomes the run folder, or None."""
    folder = _manifest_path(output_dir).parent
    return [
        {**job, "run": RunFolder((folder / job["run"]).resolve()) if "run" in job else None}
        for job in manifest_of(output_dir)["jobs"]
    ]


def _manifest_path(output_dir: Path) -> Path:
    [path] = (output_dir / "sweeps").glob("*/manifest.json")
    return path


def runs_below(output_dir: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(output_dir.glob("*/*/config.yaml"))]


def has_begun(run: RunFolder) -> bool:
    return run.status.is_file() and run.read_status()["step"] > 0
