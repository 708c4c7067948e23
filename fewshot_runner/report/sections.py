"""Configs by the thousand: what configs have in common is parsed once.

Parsing takes longer than anything else that a comparison does. But the configs of a sweep differ in a few lines, and a
mapping in block style is the sum of its top-level sections, so each section is looked up by its text.
"""

import json
import re
from functools import cache
from typing import Any

import yaml

from fewshot_runner.runs import LOADER
from fewshot_runner.settings import flatten

SECTION = re.compile(r"^(?=[A-Za-z_]\w*:(?:[ \n]|$))", re.MULTILINE)


def parse_settings(text: str) -> dict[str, Any] | None:
    """What `yaml.load` makes of `text`, by dotted names; None where that is no mapping. Raises one of `UNREADABLE`."""
    first, *sections = SECTION.split(text)
    if first.strip() or not sections:
        return _whole(text)
    settings: dict[str, Any] = {}
    try:
        for section in sections:
            settings |= _section(section)
    except yaml.YAMLError:  # cut in two: a quoted text over lines, or an anchor that another section refers to
        return _whole(text)
    return settings


@cache
def _section(text: str) -> dict[str, Any]:
    return flatten(_loaded(text))


def _whole(text: str) -> dict[str, Any] | None:
    config = _loaded(text)
    return flatten(config) if isinstance(config, dict) else None


def _loaded(text: str) -> Any:
    """Raises `ValueError` for what refers to itself, `RecursionError` for what is nested too deeply to be printed."""
    content = yaml.load(text, Loader=LOADER)
    json.dumps(content, default=str, skipkeys=True)
    return content
