"""Downloads that leave a whole, verified file or nothing."""

import http.client
import tempfile
from pathlib import Path

from fewshot_runner import atomic
from fewshot_runner.errors import Absent, UserError


def fetched(
    url: str, path: Path, *, md5: str, download: bool, missing: str | None = None, key: str = "download"
) -> Path:
    """`path`, downloaded where it is absent.

    Raises `Absent` where `download`, whose name in the config is `key`, forbids that; it says what is `missing`, if
    that is more than the file.
    """
    if not path.is_file():
        if not download:
            raise Absent(
                f"{key}=false: {missing or f'{path} is missing'}; set it to true, or dataset.root or FSL_DATA to the "
                "folder that has it"
            )
        fetch(url, path, md5=md5)
    return path


def fetch(url: str, path: Path, *, md5: str | None = None) -> None:
    """Downloads `url` to `path`, making its folder; with `md5`, refuses what does not match.

    Raises `UserError` that says how to put the file there by hand.
    """
    from torchvision.datasets.utils import download_url  # late: importing torchvision takes a second

    try:
        with tempfile.TemporaryDirectory(prefix="fsl-download-") as folder:
            download_url(url, folder, filename=path.name, md5=md5)
            content = (Path(folder) / path.name).read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, content)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"{path} is missing and could not be downloaded ({error}); download {url} by hand and put it there"
        ) from error
