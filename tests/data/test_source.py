"""Splits and fixed runs: names and hashes that say what was trained on and what was tested on."""

import hashlib
import os
import subprocess
import sys

import pytest
from PIL import Image

from fewshot_runner.data.source import FixedRuns, Item, Split
from fewshot_runner.errors import UserError

CLASSES = {"train": ["a", "b"], "val": ["c"], "test": ["d", "é"]}
IMAGES = {"train": ["a/1"], "val": ["a/2"], "test": ["a/3"]}


def test_trap_11_a_hash_is_a_digest_of_the_lists_themselves():
    text = '{"classes": {"test": ["d", "\\u00e9"], "train": ["a", "b"], "val": ["c"]}, "rotations": false}'
    assert Split("mine", CLASSES).hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    text = text.replace(', "rotations', ', "images": {"test": ["a/3"], "train": ["a/1"], "val": ["a/2"]}, "rotations')
    assert Split("mine", CLASSES, IMAGES).hash == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_trap_11_a_hash_does_not_depend_on_order_name_or_process():
    shuffled = Split("other", {"test": ("é", "d"), "val": ("c",), "train": ("b", "a")})
    assert shuffled.hash == Split("mine", CLASSES).hash
    program = f"from fewshot_runner.data.source import Split; print(Split('x', {CLASSES!r}, {IMAGES!r}).hash)"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "3", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert answer.strip() == Split("mine", CLASSES, IMAGES).hash


def test_trap_09_a_hash_differs_as_soon_as_the_protocol_does():
    splits = [
        Split("s", CLASSES),
        Split("s", CLASSES, rotations=True),
        Split("s", CLASSES, IMAGES),
        Split("s", CLASSES, {**IMAGES, "train": ["a/4"]}),
        Split("s", {**CLASSES, "train": ["a"], "val": ["b", "c"]}),
        Split("s", {**CLASSES, "val": ["d", "é"], "test": ["c"]}),
        Split("s", {**CLASSES, "train": ["a", "b", "e"]}),
        Split("s", {**CLASSES, "train": ["ab"]}),
    ]
    assert len({split.hash for split in splits}) == len(splits)


def test_a_split_of_fixed_runs_has_test_classes_alone():
    class Two(FixedRuns):
        name = "two"
        of_splits = ("mine",)

        def identity(self):
            return {"name": self.name}

        def items(self):
            return [Item("1", "a"), Item("2", "b"), Item("3", "a")]

        def image(self, index):
            return Image.new("L", (8, 8))

        def runs(self):
            return []

    split = Two().split("anything")
    assert (split.name, {part: set(names) for part, names in split.classes.items()}) == (
        "two",
        {"train": set(), "val": set(), "test": {"a", "b"}},
    )


def test_a_mistake_of_the_user_is_a_value_error():
    with pytest.raises(ValueError, match="a remedy"):
        raise UserError("a remedy")
