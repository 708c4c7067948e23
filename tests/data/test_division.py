"""Divisions by image: hand-made lists, and the rule of the hash worked out once more with hashlib alone."""

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from fewshot_runner.data.division import Division, untested
from fewshot_runner.data.source import PARTS, Item, Split
from fewshot_runner.errors import UserError


def division(**options) -> Division:
    given = {"source": "here", "declared": "tables", "remedy": "do so", "val_fraction": 0.2, "test_fraction": 0.2}
    return Division(**{**given, **options})


def items(sizes: dict[str, int], part: str = "") -> list[Item]:
    return [Item(f"{part}/{name}/{n}.jpg", name, "", part) for name, size in sizes.items() for n in range(size)]


def by_hash(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def names_of(found: list[Item], class_name: str) -> list[str]:
    return by_hash([item.name for item in found if item.class_name == class_name])


def check_disjoint(split: Split, whole: list[Item]) -> None:
    names = [name for part in PARTS for name in split.images[part]]
    assert sorted(names) == sorted(item.name for item in whole)
    label = {item.name: item.class_name for item in whole}
    for part in PARTS:
        assert set(split.classes[part]) == {label[name] for name in split.images[part]}


# --- images


@pytest.mark.parametrize(
    ("size", "val", "test", "expected"),
    [
        (1, 0.2, 0.2, (1, 0, 0)),
        (2, 0.2, 0.2, (2, 0, 0)),
        (3, 0.2, 0.2, (1, 1, 1)),
        (3, 0.01, 0.01, (1, 1, 1)),
        (3, 0.49, 0.49, (1, 1, 1)),
        (4, 0.49, 0.49, (1, 1, 2)),
        (10, 0.2, 0.3, (5, 2, 3)),
        (100, 0.1, 0.264, (64, 10, 26)),
    ],
)
def test_images_takes_a_share_of_each_class_by_hash(size, val, test, expected):
    whole = items({"cat": size, "dog": 30, "emu": 2})
    split = division(val_fraction=val, test_fraction=test).split("images", whole)
    assert split.name == "images"
    check_disjoint(split, whole)
    ordered = names_of(whole, "cat")
    n_train, n_val, n_test = expected
    assert n_train + n_val + n_test == size
    found = {part: {name for name in split.images[part] if "/cat/" in name} for part in PARTS}
    assert found["test"] == set(ordered[:n_test])
    assert found["val"] == set(ordered[n_test : n_test + n_val])
    assert found["train"] == set(ordered[n_test + n_val :])
    assert set(names_of(whole, "emu")) <= set(split.images["train"])


def test_classes_that_get_no_test_images_are_named():
    whole = items({"cat": 3, "two": 2, "dog": 30, "one": 1})
    assert untested(division().split("images", whole)) == ["one", "two"]
    assert untested(division().split("images", items({"cat": 3}))) == []
    assert untested(division().split("random", whole)) == [], "whole classes are for training there"
    declared = [*items({"cat": 9, "dog": 9, "emu": 9}, "train"), *items({"cat": 1, "emu": 1}, "test")]
    assert untested(division().split("images", declared)) == ["dog"]


def test_images_keeps_the_parts_that_the_data_declare():
    train, test = items({"cat": 10, "dog": 5}, "train"), items({"cat": 3}, "test")
    split = division().split("images", [*test, *train])
    check_disjoint(split, [*train, *test])
    assert set(split.images["test"]) == {item.name for item in test}
    assert set(split.images["val"]) == {*names_of(train, "cat")[:2], *names_of(train, "dog")[:1]}
    whole = [*train, *items({"cat": 4}, "val"), *test]
    assert division().split("images", whole).images == division().split("tables", whole).images
    split = division().split("images", [*train, *items({"cat": 4}, "val")])
    assert set(split.images["test"]) == {*names_of(train, "cat")[:2], *names_of(train, "dog")[:1]}


@pytest.mark.parametrize("part", ["", "train", "val"])
def test_test_is_all_of_it_whatever_the_data_declare(part):
    whole = [*items({"cat": 1, "new": 2}, part), *items({"dog": 3}, "test"), Item("x.jpg", "", "", "test")]
    split = division(unknown_label="new").split("test", whole)
    assert (split.name, split.images) == ("test", None)
    assert split.classes == {"train": (), "val": (), "test": ("cat", "dog")}


def test_images_is_refused_where_a_class_is_not_trained_on():
    whole = [*items({"cat": 5}, "train"), *items({"gnu": 5, "yak": 2}, "test")]
    with pytest.raises(UserError, match=r"of 2 there are no training images \(gnu, yak\); set .*=tables or random"):
        division().split("images", whole)
    with pytest.raises(UserError, match=r"split=images finds no images for val and test; classes need 3 images"):
        division().split("images", items({"cat": 2, "dog": 2}))


def test_strangers_and_the_unlabelled_are_no_classes():
    whole = [*items({"cat": 5, "dog": 5, "emu": 5, "new": 9}), Item("x.jpg", "", "", "test")]
    cut = division(unknown_label="new")
    for name in ("images", "random"):
        split = cut.split(name, whole)
        assert {c for part in PARTS for c in split.classes[part]} == {"cat", "dog", "emu"}
    assert "new" in {c for part in PARTS for c in division().split("random", whole).classes[part]}
    declared = [*items({"cat": 2}, "train"), *items({"dog": 2}, "val"), *items({"emu": 2}, "test"), whole[-1]]
    assert cut.split("tables", declared).classes == {"train": ("cat",), "val": ("dog",), "test": ("emu",)}


# --- retrieval


SIZES = {"one": 1, "two": 2, "three": 3, "nine": 9, "new": 10}


def test_retrieval_holds_out_one_image_of_each_identity_that_can_spare_it():
    train, test = items(SIZES, "train"), items({"one": 2, "new": 3}, "test")
    split = division(unknown_label="new").split("retrieval", [*train, *test])
    check_disjoint(split, [*train, *test])
    assert set(split.images["test"]) == {item.name for item in test}
    probes = [*names_of(train, "three")[:1], *names_of(train, "nine")[:1], *names_of(train, "new")[:3]]
    assert set(split.images["val"]) == set(probes)
    assert split.classes["val"] == ("new", "nine", "three")
    assert set(split.classes["train"]) == set(SIZES)


@pytest.mark.parametrize(("val_from", "known"), [(2, {"two", "three", "nine"}), (9, {"nine"}), (10, set())])
def test_retrieval_knows_how_many_images_an_identity_needs(val_from, known):
    whole = [*items(SIZES), *items({"new": 1}, "test")]
    split = division(unknown_label="new", val_from=val_from, val_unknown=0.5).split("retrieval", whole)
    label = {item.name: item.class_name for item in whole}
    held = Counter(label[name] for name in split.images["val"])
    assert held == {**dict.fromkeys(known, 1), "new": 5}


def test_retrieval_takes_probes_that_the_data_declare():
    whole = [*items(SIZES, "train"), *items({"nine": 1}, "val"), *items({"new": 1}, "test")]
    split = division(unknown_label="new").split("retrieval", whole)
    assert split.images["val"] == ("val/nine/0.jpg",)
    assert len(split.images["train"]) == sum(SIZES.values())


def test_retrieval_tests_on_images_that_nobody_has_labelled():
    unlabelled = [Item(f"test/{n}.jpg", "", "", "test") for n in range(3)]
    split = division(unknown_label="new").split("retrieval", [*items(SIZES, "train"), *unlabelled])
    assert split.images["test"] == ("test/0.jpg", "test/1.jpg", "test/2.jpg")
    assert split.classes["test"] == ("",)


def test_retrieval_takes_images_to_identify_where_none_are_told():
    """For test what validation leaves: an identity of three has none then, one of nine a second."""
    whole = items(SIZES)
    split = division(unknown_label="new").split("retrieval", whole)
    check_disjoint(split, whole)
    nine, new = names_of(whole, "nine"), names_of(whole, "new")
    assert set(split.images["val"]) == {names_of(whole, "three")[0], nine[0], *new[:3]}
    assert set(split.images["test"]) == {nine[1], *new[3:6]}
    assert set(split.classes["train"]) == set(SIZES)
    greedy = division(unknown_label="new", val_unknown=0.8).split("retrieval", whole)
    assert [sum("new" in name for name in greedy.images[part]) for part in ("val", "test", "train")] == [8, 2, 0]


def test_retrieval_needs_images_to_identify():
    with pytest.raises(UserError, match=r"^here: dataset\.split=retrieval finds no images for test; .* smaller number"):
        division().split("retrieval", items({"one": 1, "three": 3}))
    with pytest.raises(
        UserError, match=r"finds no images for val; only identities of dataset\.val_from=3 images or more"
    ):
        division().split("retrieval", [*items({"a": 2}), *items({"a": 1}, "test")])


def test_a_division_is_the_same_in_another_order_and_another_process():
    whole = [*items(SIZES, "train"), *items({"new": 1}, "test")]
    cut = division(unknown_label="new")
    program = (
        "from fewshot_runner.data.division import Division; from fewshot_runner.data.source import Item\n"
        f"cut = {cut!r}\nfor name in ('retrieval', 'images'): print(cut.split(name, {whole[::-1]!r}).hash)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.stdout.split() == [cut.split(name, whole).hash for name in ("retrieval", "images")], answer.stderr


# --- settings


@pytest.mark.parametrize("key", ["val_fraction", "test_fraction", "val_unknown"])
@pytest.mark.parametrize("value", [0, 1, -0.1, float("nan"), "a third", None])
def test_shares_that_are_refused(key, value):
    with pytest.raises(UserError, match=rf"^dataset\.{key}={value!r}: give a share between 0 and 1"):
        division(**{key: value})


@pytest.mark.parametrize("value", [1, 0, 2.5, True, "3"])
def test_numbers_of_images_that_are_refused(value):
    with pytest.raises(UserError, match=rf"^dataset\.val_from={value!r}: give a whole number of 2 or more"):
        division(val_from=value)


def test_known_splits_are_listed():
    with pytest.raises(
        UserError, match=r"=lake is unknown here; choose one of: ravi, random, images, retrieval, test$"
    ):
        division(declared="ravi").split("lake", items(SIZES))
