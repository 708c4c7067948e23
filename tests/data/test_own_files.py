"""What a data set says of files that are a user's own."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fewshot_runner.data.dataset import Dataset
from fewshot_runner.data.sources.folder import Folder


@pytest.fixture
def make(tmp_path):
    def make(source, **options) -> Dataset:
        return Dataset(source, **{"cache": str(tmp_path / "cache"), "image_size": 20, "channels": 3, **options})

    return make


def test_the_hash_of_files_tells_what_they_hold_and_not_where_they_lie(make, squares, tmp_path):
    pictures = tmp_path / "pictures"
    for number in range(9):
        place = pictures / f"class{number % 3}/{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 20 * number, dtype=np.uint8)).save(place)

    def hashed(place, **options):
        return make(Folder(path=place, name="pictures"), split="random", **options).files_hash

    plain = hashed(pictures)
    copied = shutil.copytree(pictures, tmp_path / "copied")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", pictures)
    assert hashed(copied) == hashed(packed) == hashed(pictures, image_size=12, channels=1) == plain
    Image.fromarray(np.full((20, 20, 3), 250, dtype=np.uint8)).save(copied / "class0/0.png")
    assert hashed(copied) != plain
    shutil.copy(pictures / "class0/0.png", copied / "class0/0.png")
    assert hashed(copied) == plain
    assert make(squares(), split="classes").files_hash is None  # no files of a user's


def test_copies_of_training_images_in_other_parts_are_counted(make, tmp_path):
    pictures = tmp_path / "pictures"
    for number, part in enumerate(("train", "train", "val", "test", "test")):
        place = pictures / f"{part}/class{number}/0.png"
        place.parent.mkdir(parents=True)
        Image.fromarray(np.full((20, 20, 3), 20 * number, dtype=np.uint8)).save(place)

    def count() -> int:
        return make(Folder(path=pictures), split="folders").provenance.copies or 0

    assert count() == 0
    assert make(Folder(path=pictures), split="folders").remarks(searched=False) == []
    shutil.copy(pictures / "test/class3/0.png", pictures / "test/class4/1.png")  # no leak, if no use
    assert count() == 0
    shutil.copy(pictures / "train/class0/0.png", pictures / "test/class4/another name.png")
    assert count() == 1
    shutil.copy(pictures / "val/class2/0.png", pictures / "test/class4/chosen by.png")  # weights are chosen on val
    assert count() == 2
    shutil.copy(pictures / "train/class1/0.png", pictures / "val/class2/1.png")
    assert count() == 2
    said = make(Folder(path=pictures), split="folders").remarks(searched=False)
    assert said == [
        "1 of the images for validation are copies of training images: figures are inflated",
        "2 of the images for testing are copies of images for training or validation: figures are inflated",
    ]


@pytest.mark.parametrize(("small", "said"), [(0, None), (1, "1 class has no"), (7, "7 classes have no")])
def test_classes_too_small_to_be_tested_are_named(make, tmp_path, small, said):
    pictures = tmp_path / "pictures"
    sizes = {"large": 5, **{f"small{number}": 2 for number in range(small)}}
    for grey, (name, number) in enumerate((name, number) for name, size in sizes.items() for number in range(size)):
        (pictures / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 9 * grey, dtype=np.uint8)).save(pictures / name / f"{number}.png")
    remarks = make(Folder(path=pictures), split="images").remarks(searched=False)
    assert len(remarks) == (small > 0)
    if small:
        assert remarks[0].startswith(said)
        assert "small0" in remarks[0]
        assert remarks[0].endswith("and 2 more") == (small == 7)
