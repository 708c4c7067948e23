"""What a CSV file is refused with."""

from pathlib import Path

import pytest

from fewshot_runner.data.sources.csv import Csv
from fewshot_runner.errors import UserError


def error(path: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        Csv(path=path, **options).items()
    assert str(caught.value).startswith(f"{path}: ") or str(caught.value).startswith(f"{path} ")
    return str(caught.value)
