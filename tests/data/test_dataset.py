"""A data set as a run uses it: its tables and pictures against the source's own lists."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from class_tables import read
from PIL import Image

from fewshot_runner.data.crops import CentreCrop, RandomResizedCrop
from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.decode import evaluation_view
from fewshot_runner.data.images import SYMMETRIES
from fewshot_runner.data.source import PARTS, FixedRuns, Item, Run, Split
from fewshot_runner.data.transforms import Chain, Warp, centred
from fewshot_runner.errors import UserError

CPU = torch.device("cpu")


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

    expected_remarks = {"none": 0, "dihedral": 1}[symmetries]
    assert [said.partition(":")[0] for said in dataset.remarks(searched=False)] == [
        "dataset.symmetries=dihedral has no effect"
    ] * expected_remarks


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


def test_the_hash_of_images_tells_which_there_are_whatever_their_size(make, squares):
    class Listed(squares):
        """Squares under names, classes and an order of the test's own."""

        def __init__(self, change):
            super().__init__()
            self.change = change

        def identity(self):
            return {"items": [(item.name, item.class_name) for item in self.items()]}

        def items(self):
            return self.change(super().items())

        def image(self, index):
            return super().image(0)

    def hashed(change=lambda items: items, **options):
        return make(Listed(change), **options).images_hash

    plain = hashed()
    assert hashed(image_size=12, channels=1, split="images") == plain
    first, second, *others = Listed(lambda items: items).items()
    changes = [
        lambda items: items[:-1],
        lambda items: [replace(first, name="another.png"), *items[1:]],
        lambda items: [replace(first, class_name="warm/1"), *items[1:]],
        lambda items: [second, first, *others],  # episodes go by the place in the list
    ]
    assert len({plain, *map(hashed, changes)}) == 1 + len(changes)


def test_a_copy_of_a_training_image_in_validation_alone_is_told(make, squares):
    class Copied(squares):
        """The first image of val is, file for file, the first of train."""

        def checksum(self, index):
            return 0 if index == 24 else index

    dataset = make(Copied())
    assert (dataset.images_of("train")[0], dataset.images_of("val")[0]) == (0, 24)
    assert dataset.copies("val", of=("train",)) == 1
    assert dataset.copies("test", of=("train", "val")) == 0
    [said] = dataset.remarks(searched=False)
    assert said == "1 of the images for validation are copies of training images: figures are inflated"
    assert "copies" not in dataset.provenance.entries()


def test_a_viewer_of_centred_drawings_centres_what_the_table_names(make):
    plain, moved = make(invert=True), make(invert=True, centre=True)
    index = torch.from_numpy(plain.table("train").members[:4])
    assert torch.equal(moved.viewer("train", CPU)(index), centred(plain.viewer("train", CPU)(index)))


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
        ({"resample": "nearest"}, "dataset.resample=nearest: choose bilinear or bicubic"),
        ({"shorter_side": 19}, "dataset.shorter_side=19: give dataset.image_size=20 pixels or more, or null"),
        (
            {"shorter_side": 20, "symmetries": "rotations"},
            r"dataset.symmetries=rotations needs square images; set it to none, or dataset.shorter_side=null \(now",
        ),
        (
            {"crop": RandomResizedCrop(size=24)},
            "dataset.crop and dataset.augment make images of 3 x 24 x 24 for a network of 3 x 20 x 20: "
            "end them with a crop of size=20, or change dataset.image_size",
        ),
        ({"augment": CentreCrop(size=16)}, "make images of 3 x 16 x 16 for a network of 3 x 20 x 20"),
        ({"augment": CentreCrop(size=28)}, "size=28: the images to be cropped are 20 x 20"),
    ],
)
def test_wrong_options_are_refused(make, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"symmetries": "flips"},
        {"mean": [0.5]},
        {"split": "lake"},
        {"shorter_side": 20, "symmetries": "rotations"},
        {"crop": RandomResizedCrop(size=24)},
    ],
)
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
        name, of_splits = "two", ("classes",)

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


# --- photographs at their own aspect ratio


@pytest.fixture
def photographs(tmp_path, photos):
    def make(source=None, **options) -> Dataset:
        settings = {"split": "own", "cache": str(tmp_path), "image_size": 16, "shorter_side": 20, "channels": 3}
        return Dataset(source or photos(), **{**settings, **options})

    return make


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_evaluation_sees_the_middle_of_a_photograph(photographs, part, resample):
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    dataset = photographs(mean=mean, std=std, resample=resample, crop=RandomResizedCrop(size=16))
    members = dataset.table(part).members
    shown = dataset.viewer(part, CPU)(torch.from_numpy(members))
    assert shown.shape[1:] == dataset.image_shape == (3, 16, 16)
    for image, member in zip(shown.numpy(), members, strict=True):
        view = evaluation_view(dataset.source.image(member), 16, 3, shorter_side=20, resample=resample)
        by_hand = (view.transpose(1, 2, 0) / 255 - mean) / std
        np.testing.assert_allclose(image, by_hand.transpose(2, 0, 1), atol=1e-5)


def test_training_alone_is_cropped_and_may_be_larger_before_its_last_crop(photographs):
    crop = RandomResizedCrop(size=24)
    augment = Chain([Warp(rotation=15, background="edge"), CentreCrop(size=16)])
    dataset = photographs(crop=crop, augment=augment)
    assert dataset.viewer("train", CPU).crop is crop
    assert dataset.viewer("val", CPU).crop is None
    assert dataset.viewer("test", CPU).crop is None
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    index = torch.tensor([2, 0, 2])
    seen = dataset.viewer("train", CPU).augmented(index, augment, generators[0])
    expected = augment(crop(dataset.images.pictures(index), generators[1]), generators[1])
    assert torch.equal(seen, expected)
    assert seen.shape == (3, 3, 16, 16)


def test_views_of_other_sizes_share_a_store(photographs, photos):
    first = photographs()
    source = photos()
    second = photographs(source, image_size=12)
    assert second.store.path == first.store.path
    assert not source.decoded
    index = torch.arange(9)
    large, small = (dataset.viewer("train", CPU)(index) for dataset in (first, second))
    assert torch.equal(large[:, :, 2:-2, 2:-2], small)


def test_turned_classes_need_square_images(photographs, photos):
    class Rotated(photos):
        def split(self, name: str) -> Split:
            return Split(name, super().split(name).classes, rotations=True)

    with pytest.raises(UserError, match=r"dataset.split=own: its classes are turned.*set dataset.shorter_side=null"):
        photographs(Rotated())
    assert photographs(Rotated(), shorter_side=None).table("val").n_classes == 4


@pytest.mark.parametrize(("light", "invert", "told"), [(230, False, "invert=true"), (20, True, "invert=false")])
def test_trap_18_what_is_centred_are_light_drawings_on_black(make, squares, light, invert, told):
    """Else paper would be moved, and ink come in from beyond the border."""

    class Painted(squares):
        def image(self, index: int) -> Image.Image:
            return Image.new("RGB", (20, 20), (light, light, light))

        def identity(self):
            return {**super().identity(), "light": light}

    with pytest.raises(UserError, match=rf"dataset\.centre=true .* set dataset\.{told}"):
        make(Painted(), centre=True, invert=invert)
    assert make(Painted(), centre=True, invert=not invert)
    assert make(Painted(), invert=invert)
