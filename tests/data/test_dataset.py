"""A data set as a run uses it: its tables and pictures against the source's own lists."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot_runner.data.classes import ClassTable
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.images import SYMMETRIES
from fewshot_runner.data.source import PARTS, FixedRuns, Item, Run, Split
from fewshot_runner.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def make(tmp_path, squares):
    """A data set of squares at their own size, so that pixels need no resizing."""

    def make(source=None, **options) -> Dataset:
        settings = {"split": "classes", "cache": str(tmp_path), "image_size": 20, "channels": 3, **options}
        return Dataset(source or squares(), **settings)

    return make


def read(table: ClassTable) -> dict[str, list[int]]:
    return {name: table.members[table.offsets[c] : table.offsets[c + 1]].tolist() for c, name in enumerate(table.names)}


def expected(dataset: Dataset, part: str) -> dict[str, list[int]]:
    """The table of a part from the source's list and the split's names, without symmetries."""
    table: dict[str, list[int]] = {}
    for index, item in enumerate(dataset.source.items()):
        images = dataset.split.images
        if item.class_name in dataset.split.classes[part] and (images is None or item.name in images[part]):
            table.setdefault(item.class_name, []).append(index)
    return table


@pytest.mark.parametrize("split", ["classes", "images"])
@pytest.mark.parametrize("part", PARTS)
def test_a_table_holds_the_images_of_its_part(make, split, part):
    dataset = make(split=split)
    table = dataset.table(part)
    assert read(table) == expected(dataset, part)
    assert list(table.names) == sorted(table.names)
    for c, name in enumerate(table.names):
        assert table.group_names[table.class_groups[c]] == name.split("/")[0]


@pytest.mark.parametrize("split", ["classes", "images"])
def test_parts_share_no_image(make, split):
    dataset = make(split=split)
    members = np.concatenate([dataset.table(part).members for part in PARTS])
    assert sorted(members.tolist()) == list(range(36))
    sizes = {part: set(dataset.table(part).sizes.tolist()) for part in PARTS}
    assert sizes == ({part: {6} for part in PARTS} if split == "classes" else {"train": {4}, "val": {1}, "test": {1}})


@pytest.mark.parametrize("symmetries", SYMMETRIES)
def test_symmetries_multiply_the_training_classes_alone(make, symmetries):
    dataset = make(symmetries=symmetries)
    base = expected(dataset, "train")
    table = read(dataset.table("train"))
    assert len(table) == len(SYMMETRIES[symmetries]) * len(base)
    for version, name in enumerate(SYMMETRIES[symmetries]):
        for class_name, images in base.items():
            assert table[class_name + (f"/{name}" if version else "")] == [image + 36 * version for image in images]
    for part in ("val", "test"):
        assert read(dataset.table(part)) == expected(dataset, part)


@pytest.mark.parametrize("symmetries", ["none", "dihedral"])
def test_trap_10_rotations_of_a_split_stay_in_the_part_of_their_base_class(make, squares, symmetries):
    class Rotated(squares):
        def split(self, name: str) -> Split:
            return Split(name, super().split("classes").classes, rotations=True)

    dataset = make(Rotated(), symmetries=symmetries)
    base_images = {}
    for part in PARTS:
        table = read(dataset.table(part))
        base = expected(dataset, part)
        assert set(table) == {name + turn for name in base for turn in ("", "/rot090", "/rot180", "/rot270")}
        base_images[part] = {image % 36 for images in table.values() for image in images}
    assert not base_images["train"] & base_images["val"]
    assert not base_images["train"] & base_images["test"]
    assert not base_images["val"] & base_images["test"]


@pytest.mark.parametrize("part", PARTS)
def test_a_viewer_shows_the_images_that_a_table_names(make, part):
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    dataset = make(symmetries="rotations", invert=True, mean=mean, std=std)
    table, viewer = dataset.table(part), dataset.viewer(part, CPU)
    shown = viewer(torch.from_numpy(table.members)).numpy()
    for image, member in zip(shown, table.members, strict=True):
        picture = np.asarray(dataset.source.image(member % 36)) / 255
        picture = np.rot90(picture, member // 36)
        by_hand = (1 - picture - mean) / std
        np.testing.assert_allclose(image, by_hand.transpose(2, 0, 1), atol=1e-5)
    assert shown.shape[1:] == dataset.image_shape == (3, 20, 20)


def test_a_part_without_classes_is_refused_when_it_is_asked_for(make, squares):
    class NoTest(squares):
        def split(self, name: str) -> Split:
            return Split(name, {**super().split(name).classes, "test": []})

    dataset = make(NoTest())
    assert dataset.table("train").n_classes == 4
    with pytest.raises(UserError, match=r"dataset.split=classes: its test part holds no classes of squares"):
        dataset.table("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "lake"}, "dataset.split=lake: squares have the splits classes and images"),
        ({"symmetries": "flips"}, "dataset.symmetries=flips: choose one of none, rotations, dihedral"),
        ({"channels": 2}, "dataset.channels=2: choose 1"),
        ({"image_size": 7}, "dataset.image_size=7: give 8 pixels or more"),
        ({"mean": [0.5]}, r"dataset.mean=\[0.5\]: give one value a channel; dataset.channels=3"),
        ({"channels": 1, "std": [1.0, 1.0, 1.0]}, r"dataset.std=.*: give one value a channel; dataset.channels=1"),
        ({"std": []}, r"dataset.std=\[\]: give one value a channel"),
        ({"std": [1.0, 0.0, 1.0]}, "standard deviation must be above 0"),
    ],
)
def test_wrong_options_are_refused(make, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


@pytest.mark.parametrize("options", [{"symmetries": "flips"}, {"mean": [0.5]}, {"split": "lake"}])
def test_wrong_options_are_refused_before_an_image_is_read(make, squares, options):
    source = squares()
    with pytest.raises(UserError):
        make(source, **options)
    assert not source.decoded


def test_tests_that_were_switched_off_are_left_out(make):
    tests: Mapping = {"5way": {"n_way": 5}, "20way": None}
    assert make(tests=tests).tests == {"5way": {"n_way": 5}}
    assert make().tests == {}


def test_fixed_runs_are_seen_as_the_data_set_is(make):
    class Two(FixedRuns):
        name, of_split = "two", "classes"

        def identity(self):
            return {"name": self.name}

        def items(self):
            return [Item("1", "a"), Item("2", "b")]

        def image(self, index):
            return Image.new("RGB", (40, 40), (255, 51 * index, 0))

        def runs(self):
            return [Run(support=[0], support_labels=[0], query=[1], query_labels=[0])]

    shown = make(invert=True, mean=[0.0, 0.5, 0.5], std=[1.0, 1.0, 2.0]).fixed_runs(Two(), CPU)(torch.tensor([1, 0]))
    assert shown.shape == (2, 3, 20, 20)
    torch.testing.assert_close(shown[0, :, 7, 7], torch.tensor([0.0, 0.3, 0.25]))
    torch.testing.assert_close(shown[1, :, 7, 7], torch.tensor([0.0, 0.5, 0.25]))


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, squares, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Dataset(squares(), split="classes", cache="~/c", image_size=8).store.path.parent == tmp_path / "c"
