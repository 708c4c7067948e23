"""Downloads that leave a whole, verified file or none."""

import os
import shutil
import tempfile
from pathlib import Path

from fewshot_runner.errors import UserError


def fetch(url: str, path: Path, *, md5: str | None = None) -> None:
    """Downloads `url` to `path`, making its folder; with `md5`, refuses what does not match.

    Raises `UserError` that says how to put the file there by hand.
    """
    from torchvision.datasets.utils import download_url  # late: importing torchvision takes a second

    by_hand = f"download {url} by hand and put it at {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent, prefix=".download-")
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write the download there ({error}); {by_hand}") from error
    try:
        download_url(url, folder, filename=path.name, md5=md5)
        os.replace(Path(folder) / path.name, path)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is missing and could not be downloaded ({error}); {by_hand}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
