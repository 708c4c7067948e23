"""Packages that only some commands need."""

import importlib
from types import ModuleType

from fewshot_runner.errors import UserError


def imported(package: str, *, extra: str, asked_by: str) -> ModuleType:
    """The package, or a `UserError` that tells how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{asked_by}: needs {package}, which is not installed; pip install 'fewshot-runner[{extra}]'"
        ) from error
