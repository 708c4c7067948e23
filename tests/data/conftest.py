"""The published data that several tests read."""

import pytest

from fewshot_runner.data.sources.omniglot import Omniglot


@pytest.fixture(scope="module")
def real(omniglot_data) -> Omniglot:
    return Omniglot(root=str(omniglot_data), download=False)


@pytest.fixture(scope="module")
def vinyals_lists(omniglot_data) -> dict[str, list[str]]:
    folder = omniglot_data / "splits" / "omniglot" / "vinyals"
    if not folder.is_dir():
        pytest.skip(f"needs the published lists, and {folder} is absent; set FSL_DATA")
    return {part: (folder / f"{part}.txt").read_text().splitlines() for part in ("train", "val", "test")}
