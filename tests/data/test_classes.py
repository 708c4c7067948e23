"""The class table against dictionaries of lists."""

import dataclasses

import numpy as np
import pytest
import torch
from class_tables import CLASS_OF, TABLE
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.images import SYMMETRIES


@st.composite
def listings(draw):
    """Labels of images, names and groups of classes, and the images to keep."""
    n_classes = draw(st.integers(1, 7))
    names = draw(st.permutations([f"name{number}" for number in range(n_classes)]))
    groups = draw(st.lists(st.sampled_from(["", "b", "a"]), min_size=n_classes, max_size=n_classes))
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=30))
    keep = draw(st.sets(st.integers(0, len(labels) - 1)))
    return np.array(labels), names, groups, np.array(sorted(keep), dtype=np.int64)


def by_hand(labels, names, groups, keep) -> dict[str, dict[str, list[int]]]:
    """group -> class -> images, in the order that the table promises."""
    table: dict[str, dict[str, list[int]]] = {}
    for group, name, label in sorted(zip(groups, names, range(len(names)), strict=True)):
        images = [int(image) for image in keep if labels[image] == label]
        if images:
            table.setdefault(group, {})[name] = images
    return table


def read(table: ClassTable) -> dict[str, dict[str, list[int]]]:
    groups: dict[str, dict[str, list[int]]] = {}
    for g, group in enumerate(table.group_names):
        for c in range(table.group_offsets[g], table.group_offsets[g + 1]):
            images = table.members[table.offsets[c] : table.offsets[c + 1]].tolist()
            groups.setdefault(group, {})[table.names[c]] = images
    return groups


@settings(max_examples=300)
@given(listings())
def test_every_image_stands_under_its_class_and_every_class_under_its_group(listing):
    table, expected = ClassTable.build(*listing), by_hand(*listing)
    assert read(table) == expected
    assert list(table.names) == [name for group in expected.values() for name in group]
    assert list(table.group_names) == list(expected)
    assert table.n_classes == sum(len(group) for group in expected.values())
    assert table.n_groups == len(expected)
    assert table.sizes.tolist() == [len(images) for group in expected.values() for images in group.values()]
    assert table.group_sizes.tolist() == [len(group) for group in expected.values()]
    assert table.class_groups.tolist() == [g for g, group in enumerate(expected.values()) for _ in group]
    labels = [images for group in expected.values() for images in group.values()]
    assert table.image_labels.tolist() == [c for c, images in enumerate(labels) for _ in images]


@settings(max_examples=100)
@given(listings(), st.sampled_from(["rotations", "dihedral"]))
def test_symmetries_multiply_classes_and_groups(listing, kind):
    table, stride = ClassTable.build(*listing), len(listing[0])
    expected: dict[str, dict[str, list[int]]] = {}
    for version, symmetry in enumerate(SYMMETRIES[kind]):
        suffix = f"/{symmetry}" if version else ""
        for group, classes in by_hand(*listing).items():
            expected[group + suffix] = {
                name + suffix: [image + version * stride for image in images] for name, images in classes.items()
            }
    turned = table.with_symmetries(SYMMETRIES[kind], stride)
    assert read(turned) == expected
    assert turned.members.dtype == turned.offsets.dtype == turned.group_offsets.dtype == np.int64
    assert turned.n_classes == len(SYMMETRIES[kind]) * table.n_classes


def test_a_table_holds_no_pixels_and_no_way_to_them():
    """So a sampler, which is given nothing else, cannot touch them."""
    table = ClassTable.build(np.array([0, 0, 1]), ["a", "b"], ["", ""], np.arange(3))
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        assert not isinstance(value, torch.Tensor)
        if isinstance(value, np.ndarray):
            assert value.ndim == 1
            assert value.dtype == np.int64
        else:
            assert all(isinstance(name, str) for name in value)


def test_a_table_cannot_be_reassigned():
    table = ClassTable.build(np.array([0]), ["a"], [""], np.arange(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.names = ("b",)


@settings(max_examples=200)
@given(listings(), st.data())
def test_two_tables_become_one_by_name(listing, data):
    """As if the images of both had been kept from the start, though each numbers its classes by itself."""
    labels, names, groups, keep = listing
    if not len(keep):
        return
    of_first = np.array(data.draw(st.lists(st.booleans(), min_size=len(keep), max_size=len(keep))))
    if of_first.all() or not of_first.any():
        return
    first, second = (ClassTable.build(labels, names, groups, keep[chosen]) for chosen in (of_first, ~of_first))
    whole = ClassTable.build(labels, names, groups, keep)
    for merged in (first.merged(second), second.merged(first)):
        assert read(merged) == read(whole) == by_hand(*listing)
        assert merged.members.tolist() == whole.members.tolist()


def test_a_class_of_both_tables_keeps_all_its_images():
    first = ClassTable.build(np.array([0, 1, 0]), ["whale", "dolphin"], ["", ""], np.array([0, 1]))
    second = ClassTable.build(np.array([9, 9, 1, 0]), ["seal", "whale"], ["", ""], np.array([2, 3]))
    assert read(first.merged(second)) == {"": {"dolphin": [1], "seal": [3], "whale": [0, 2]}}


@pytest.mark.parametrize("k", [1, 4, 9])
def test_images_are_drawn_of_the_given_classes_and_differ(k):
    random = np.random.default_rng(k)
    classes = random.integers(TABLE.n_classes, size=(50, 3))
    drawn = TABLE.draw_images(classes, random.random((50, 3, k)))
    assert drawn.shape == (50, 3, k)
    for asked, images in zip(classes.ravel(), drawn.reshape(-1, k).tolist(), strict=True):
        assert {CLASS_OF[image] for image in images} == {asked}
        assert len(set(images)) == k


def test_the_same_numbers_draw_the_same_images_of_classes_given_once_for_all_rows():
    uniform = np.random.default_rng(0).random((20, TABLE.n_classes, 3))
    every = np.arange(TABLE.n_classes)
    one_by_one = [TABLE.draw_images(np.array(c), uniform[e, c]).tolist() for e in range(20) for c in every]
    assert TABLE.draw_images(every, uniform).reshape(-1, 3).tolist() == one_by_one
