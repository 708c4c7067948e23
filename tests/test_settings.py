"""The table of settings that do not count speaks of settings that there are."""

import pytest
import yaml

from fewshot_runner import settings
from fewshot_runner.cli.conf import conf_dir
from fewshot_runner.settings import flatten, is_below

TABLES = [settings.SAME_SWEEP, settings.SAME_JOB, settings.SAME_EXPERIMENT, settings.NO_HYPERPARAMETER]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every key of conf/, and what composing adds."""
    keys = {"choices"}
    for path in conf_dir().rglob("*.yaml"):
        prefix = "" if path.parent == conf_dir() else f"{path.parent.name}."
        keys |= flatten(yaml.safe_load(path.read_text()), prefix).keys()
    return keys


@pytest.mark.parametrize("key", sorted({key for table in TABLES for key in table}))
def test_every_setting_that_does_not_count_is_one_of_conf(key, known):
    assert any(is_below(name, [key]) for name in known)


@pytest.mark.parametrize("table", TABLES)
def test_no_setting_stands_in_a_table_twice(table):
    assert not [key for k, key in enumerate(table) if is_below(key, table[:k] + table[k + 1 :])]


def test_names_of_settings_are_dotted():
    config = {"seed": 0, "model": {"widths": [8, 8], "head": {"bias": None}}, "schedule": {}}
    assert flatten(config) == {"seed": 0, "model.widths": [8, 8], "model.head.bias": None, "schedule": {}}
    below = [name for name in ("model", "model.head", "model.head.bias", "models", "model.header", "seed")
             if is_below(name, ("model.head", "seed"))]  # fmt: skip
    assert below == ["model.head", "model.head.bias", "seed"]
