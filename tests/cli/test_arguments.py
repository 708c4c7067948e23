"""Checking a config against a signature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fewshot_runner.cli.arguments import check_arguments, nearest
from fewshot_runner.errors import UserError


class Thing:
    def __init__(
        self,
        backbone: object,
        *,
        width: int,
        rate: float = 0.1,
        name: str = "",
        on: bool = False,
        steps: int | None = None,
        mode: Literal["fast", "slow"] = "fast",
        sizes: Sequence[int] = (),
        pair: tuple[float, float] = (0.0, 1.0),
        table: Mapping[str, Mapping[str, Any] | None] | None = None,
        anything: Any = None,
        unsaid=None,
    ) -> None:
        raise AssertionError("checking makes nothing")


GOOD = [
    {"width": 3},
    {"width": 3, "rate": 1},
    {"width": 3, "rate": 1e-3, "name": "x", "on": True, "steps": None},
    {"width": 3, "steps": 7, "mode": "slow", "sizes": [1, 2], "pair": [1, 0.5]},
    {"width": 3, "table": {"a": None, "b": {"c": 1}}, "anything": [Ellipsis], "unsaid": Ellipsis},
    {"width": 3, "table": None, "sizes": []},
]
BAD = [
    ({"width": "3"}, ["thing.width=3", "whole number"]),
    ({"width": 3.0}, ["thing.width=3.0", "whole number"]),
    ({"width": True}, ["thing.width=true", "whole number"]),
    ({"width": None}, ["thing.width=null", "whole number"]),
    ({"width": 3, "rate": "1e-3"}, ["thing.rate=1e-3", "a number"]),
    ({"width": 3, "rate": False}, ["thing.rate=false", "a number"]),
    ({"width": 3, "name": 5}, ["thing.name=5", "text", "\"thing.name='5'\""]),
    ({"width": 3, "on": 1}, ["thing.on=1", "true or false"]),
    ({"width": 3, "on": "true"}, ["thing.on=true", "true or false"]),
    ({"width": 3, "steps": 0.5}, ["thing.steps=0.5", "whole number or null"]),
    ({"width": 3, "mode": "quick"}, ["thing.mode=quick", "fast, slow"]),
    ({"width": 3, "sizes": 4}, ["thing.sizes=4", "a list"]),
    ({"width": 3, "sizes": "44"}, ["thing.sizes=44", "a list"]),
    ({"width": 3, "sizes": [1, "b"]}, ["thing.sizes=[1, 'b']", "whole number"]),
    ({"width": 3, "pair": [1]}, ["thing.pair=[1]", "a list"]),
    ({"width": 3, "pair": [1, 2, 3]}, ["thing.pair=[1, 2, 3]"]),
    ({"width": 3, "table": [1]}, ["thing.table=[1]", "group of keys"]),
    ({"width": 3, "table": {"a": 5}}, ["thing.table={'a': 5}", "group of keys"]),
    ({}, ["thing.width is missing", "thing.width=..."]),
    ({"width": 3, "widht": 4}, ["thing.widht=4", "no such key", "did you mean width?"]),
    ({"width": 3, "zzz": 4}, ["thing.zzz=4", "there is", "width", "rate"]),
    ({"width": 3, "backbone": 4}, ["thing.backbone=4", "no such key"]),
    ({"width": 3, "self": 4}, ["thing.self=4", "no such key"]),
    ({"width": 3, "name": list(range(1000))}, ["thing.name=[0, 1", "..."]),
]


@pytest.mark.parametrize("given", GOOD, ids=repr)
def test_what_fits_is_let_through(given):
    check_arguments(Thing, given, key="thing", supplied=["backbone"])


@pytest.mark.parametrize(("given", "names"), BAD, ids=lambda value: str(value)[:60])
def test_what_does_not_fit_is_named_with_its_remedy(given, names):
    with pytest.raises(UserError) as caught:
        check_arguments(Thing, given, key="thing", supplied=["backbone"])
    assert [name for name in names if name not in str(caught.value)] == []
    assert len(str(caught.value)) < 300


def test_what_the_program_supplies_may_not_be_missing_where_it_does_not():
    with pytest.raises(UserError, match=r"thing\.backbone is missing"):
        check_arguments(Thing, {"width": 3}, key="thing")


def test_dataclasses_functions_and_open_signatures():
    @dataclass(kw_only=True)
    class Settings:
        steps: int
        every: int = 5

    check_arguments(Settings, {"steps": 1}, key="")
    with pytest.raises(UserError, match=r"^every=x: give a whole number"):
        check_arguments(Settings, {"steps": 1, "every": "x"}, key="")

    def function(width: int, **more: int) -> None: ...

    check_arguments(function, {"width": 1, "whatever": 2}, key="function")
    with pytest.raises(UserError, match=r"function\.width=x"):
        check_arguments(function, {"width": "x", "whatever": 2}, key="function")


def test_annotations_that_cannot_be_read_judge_nothing():
    def function(width: "NoSuchName") -> None: ...  # noqa: F821

    check_arguments(function, {"width": object()}, key="function")
    with pytest.raises(UserError, match="no such key"):
        check_arguments(function, {"width": 1, "more": 2}, key="function")


def test_nearest():
    assert nearest("lernrate", ["learn_rate", "width"]) == "; did you mean learn_rate?"
    assert nearest("zzz", ["b", "a"]) == "; choose one of: a, b"
    assert nearest("zzz", []) == "; it takes no keys"
