"""What has been computed of a run for reports: a JSON file and pictures in a folder inside the run's."""

import json
from pathlib import Path
from typing import Any

from fewshot_runner.errors import UserError
from fewshot_runner.report.records import Record
from fewshot_runner.runs import UNREADABLE

VERSION = 3  # what was made before may be of other data than the run's


def read_analysis(record: Record) -> dict[str, Any] | None:
    """None where there is none, or it is of another version, or of other weights than the run's results.

    Raises `UserError` where it is damaged.
    """
    path = record.run.analysis_content
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise damaged(record, str(error)) from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return None
    steps = {result.get("step") for result in record.results}
    return content if content.get("step") in steps else None


def damaged(record: Record, why: str) -> UserError:
    return UserError(f"{record.run.analysis_content}: cannot be read ({why}); delete it, and fsl report makes another")


def read_picture(record: Record, name: Any) -> bytes | None:
    """A picture's PNG; None where it is missing. Only names without a folder are looked for."""
    path = record.run.analysis / Path(str(name)).name
    try:
        return path.read_bytes()
    except (OSError, ValueError):  # the latter of a name with a zero byte
        return None
