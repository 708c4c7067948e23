"""The short names of a source's keys: dataset.path for dataset.source.path."""

import pytest

from fewshot_runner.cli.build import Builder
from fewshot_runner.cli.compose import compose
from fewshot_runner.errors import UserError


def built(*overrides: str) -> Builder:
    return Builder(compose(["dataset=csv", "dataset.path=birds.csv", "hardware.device=cpu", *overrides]))


def test_the_source_follows_its_short_names() -> None:
    source = built("dataset.split_column=part").config.dataset["source"]
    assert source["split_column"] == "part"


@pytest.mark.parametrize(
    ("key", "value"), [("split_column", "part"), ("val_from", "5"), ("path", "/elsewhere/birds.csv")]
)
def test_a_long_name_is_refused_with_the_short_one_to_set(key: str, value: str) -> None:
    """Both would have a value, and only one of them could be the source's."""
    with pytest.raises(UserError) as refusal:
        built(f"dataset.source.{key}={value}")
    said = str(refusal.value)
    assert said.startswith(f"dataset.source.{key}={value}: ")
    assert said.endswith(f"set dataset.{key}={value}")


def test_a_key_without_a_short_name_keeps_its_long_one() -> None:
    assert built("+dataset.source.name=zoo").config.dataset["source"]["name"] == "zoo"


def test_a_key_of_the_data_set_is_no_short_name() -> None:
    """A source of your own may have a key of the same name."""
    built("+dataset.source.image_size=3")
